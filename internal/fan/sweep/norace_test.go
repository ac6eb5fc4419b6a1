//go:build !race

package sweep

// pooled is how many allocations crypto/tls may make in a sweep of 200: a collection empties its pool of buffers.
const pooled = 4
