//go:build race

package sweep

// pooled is how many allocations crypto/tls may make in a sweep of 200: the race detector has sync.Pool throw a quarter away.
const pooled = 200
