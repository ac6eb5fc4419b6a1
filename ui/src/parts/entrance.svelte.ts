import { api, type Session } from "../api";
import { say } from "./say";
import { secretOf } from "./secret";

/** How one comes into a page for those with a part: by the secret in the address, or by the session one has already. */
export class Entrance {
    /** To be exchanged; empty once it was, or if the address has none. */
    secret = $state(secretOf(location.hash));
    session = $state.raw<Session | null>(null);
    problem = $state("");

    load = async (): Promise<void> => {
        this.problem = "";
        try {
            this.session = await api.session();
        } catch (error) {
            this.problem = say(error);
        }
    };

    entered = (session: Session): void => {
        this.session = session;
        this.secret = "";
    };

    /** For onMount: reads the session unless there is a secret, and again at another link in the same window. */
    open = (): (() => void) => {
        if (!this.secret) void this.load();
        const another = () => {
            this.secret = secretOf(location.hash); // perhaps one that lost its secret
            if (!this.secret) void this.load();
        };
        addEventListener("hashchange", another);
        return () => removeEventListener("hashchange", another);
    };
}
