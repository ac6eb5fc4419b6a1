/** The secret in the address's fragment (`#k=SECRET`), which browsers send to nobody; empty if there is none. */
export function secretOf(hash: string): string {
    return new URLSearchParams(hash.replace(/^#/, "")).get("k") ?? "";
}
