package cluster

// StoredSessions counts sessions in the store, expired ones too.
func (c *Cluster) StoredSessions() int { return len(c.sessions.all()) }
