/** Instants and time zones. */

const wallClocks = new Map<string, Intl.DateTimeFormat>(); // a formatter costs far more to make than to use

function wallClock(zone: string): Intl.DateTimeFormat {
    const known = wallClocks.get(zone);
    if (known) return known;
    const made = new Intl.DateTimeFormat("en-CA", {
        timeZone: zone,
        hourCycle: "h23",
        year: "numeric",
        month: "2-digit",
        day: "2-digit",
        hour: "2-digit",
        minute: "2-digit",
    });
    wallClocks.set(zone, made);
    return made;
}

/** What the wall clock of a zone shows at an instant, as `YYYY-MM-DDTHH:MM` (the value of a datetime-local field). */
export function toLocal(instant: Date, zone: string): string {
    const parts = wallClock(zone).formatToParts(instant);
    const get = (type: string) => parts.find((part) => part.type === type)?.value ?? "";
    return `${get("year").padStart(4, "0")}-${get("month")}-${get("day")}T${get("hour")}:${get("minute")}`;
}

/**
 * The instant at which the wall clock of a zone shows `YYYY-MM-DDTHH:MM`. A time that a change of the clocks skips is
 * read by the clock before the change (so it lies after it); of a time that comes twice, the first is taken.
 */
export function fromLocal(local: string, zone: string): Date {
    const wall = /^\d{4,6}-\d\d-\d\dT\d\d:\d\d$/.test(local) ? Date.parse(local + ":00Z") : NaN;
    if (Number.isNaN(wall)) return new Date(NaN);
    const offset = (at: number) => Date.parse(toLocal(new Date(at), zone) + ":00Z") - at;
    // The offsets a day before and after are the two that can be meant.
    const candidates = [wall - offset(wall - 86_400_000), wall - offset(wall + 86_400_000)].sort((a, b) => a - b);
    const exact = candidates.find((at) => toLocal(new Date(at), zone) === local);
    return new Date(exact ?? wall - offset(wall - 86_400_000));
}

export function ownZone(): string {
    return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

export function zones(): string[] {
    const all = Intl.supportedValuesOf("timeZone");
    return all.includes("UTC") ? all : ["UTC", ...all];
}

/** `1:02:03` or `2:03`, for positions in a recording. */
export function position(seconds: number): string {
    const s = Math.max(0, Math.floor(seconds));
    const two = (n: number) => String(n).padStart(2, "0");
    const hours = Math.floor(s / 3600);
    const minutes = Math.floor(s / 60) % 60;
    return hours > 0 ? `${hours}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}
