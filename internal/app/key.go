package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"earshot/internal/cluster"
	"earshot/internal/web"
)

// findOperatorKey gives the operator's secret, and says whether this start made it. A node alone keeps it in its data folder. Nodes
// that share a store have one key, which is in that store: the first node gives its own, the others a copy for whoever looks into their
// folders. A node without stages keeps no copy.
func (a *App) findOperatorKey(ctx context.Context) (key string, made bool, err error) {
	path := filepath.Join(a.cfg.Data, "operator.key")
	if !a.cluster.Joined() {
		return operatorKey(path)
	}
	kept, err := readKey(path)
	if err != nil {
		return "", false, err
	}
	secret, err := a.cluster.Secret(ctx, "operator-key", func() ([]byte, error) {
		if kept != "" {
			return []byte(kept), nil
		}
		made = true
		return []byte(web.NewSecret(web.OperatorSecret)), nil
	})
	if err != nil {
		return "", false, fmt.Errorf("find the operator's key: %w", err)
	}
	key = string(secret)
	switch {
	case kept == key || kept == "" && !a.cfg.is(RoleStage):
		return key, made, nil
	case kept != "":
		return "", false, fmt.Errorf("%s: the nodes of this NATS server have another key; delete the file to take theirs", path)
	}
	if err := cluster.WriteFile(path, []byte(key+"\n")); err != nil {
		return "", false, fmt.Errorf("keep the operator's key: %w", err)
	}
	return key, made, nil
}

// operatorKey reads the operator's secret, or makes it at the first start.
func operatorKey(path string) (key string, made bool, err error) {
	if key, err = readKey(path); err != nil || key != "" {
		return key, false, err
	}
	key = web.NewSecret(web.OperatorSecret)
	if err := cluster.WriteFile(path, []byte(key+"\n")); err != nil {
		return "", false, fmt.Errorf("keep the operator's key: %w", err)
	}
	return key, true, nil
}

// readKey gives the key in a file, empty if there is no file.
func readKey(path string) (string, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the operator's key: %w", err)
	}
	key := strings.TrimRight(string(b), "\r\n")
	if len(key) < 20 {
		return "", fmt.Errorf("%s: this is not an operator's key; delete the file to have a new one made", path)
	}
	return key, nil
}
