package main

import "earshot/internal/app"

// nodesFlags are the flags of a node among others.
type nodesFlags struct {
	NATS      string     `name:"nats" secret:"url" placeholder:"URL" help:"NATS server that several nodes share, such as nats://127.0.0.1:4222; without it the store is in this process."`
	NATSCreds string     `name:"nats-creds" placeholder:"FILE" help:"NATS credentials, where the URL says none."`
	Replicas  int        `name:"nats-replicas" placeholder:"N" help:"Copies that the NATS servers keep: 1, 3 or 5. Default: 3 where they can, else 1."`
	Roles     []app.Role `name:"node-roles" placeholder:"stage,edge" help:"What this node does: stage (speakers), edge (listeners to other nodes' stages). Default: both."`
	Public    string     `placeholder:"URL" help:"Address at which people reach this node, for links and for other nodes to name, such as https://voice.example.org."`
}

func (f *nodesFlags) fill(cfg *app.Config) {
	cfg.NATS, cfg.NATSCreds, cfg.NATSReplicas, cfg.Roles, cfg.Public = f.NATS, f.NATSCreds, f.Replicas, f.Roles, f.Public
}
