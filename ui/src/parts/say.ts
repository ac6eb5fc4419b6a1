import { Problem } from "../api";
import { common } from "../text/en";

/** A failed request in words for the person who made it. */
export function say(error: unknown): string {
    return error instanceof Problem && error.status > 0 && error.detail ? error.detail : common.network;
}
