/** Builds boxes for tests, as the server does (ISO/IEC 14496-12; emsg version 1). */

export function box(type: string, ...content: (Uint8Array | number[])[]): Uint8Array {
    const size = 8 + content.reduce((sum, c) => sum + c.length, 0);
    const bytes = new Uint8Array(size);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, size);
    [...type].forEach((c, i) => view.setUint8(4 + i, c.charCodeAt(0)));
    let at = 8;
    for (const c of content) {
        bytes.set(c, at);
        at += c.length;
    }
    return bytes;
}

export function u32(...values: number[]): Uint8Array {
    const bytes = new Uint8Array(4 * values.length);
    values.forEach((v, i) => new DataView(bytes.buffer).setUint32(4 * i, v));
    return bytes;
}

export function u64(value: number): Uint8Array {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
    return bytes;
}

const utf8 = (text: string) => new TextEncoder().encode(text);

export function emsg(scheme: string, frame: number, message: string, version = 1): Uint8Array {
    const head = [u32(version << 24), u32(48_000), u64(frame * 960), u32(0, 1)];
    return box("emsg", ...head, utf8(scheme + "\0"), utf8("\0"), utf8(message));
}

/** A chunk of some frames from a frame. */
export function chunk(frame: number, frames = 10): Uint8Array {
    const tfhd = box("tfhd", u32(0, 1));
    const tfdt = box("tfdt", u32(1 << 24), u64(frame * 960));
    const trun = box("trun", u32(0x201, frames, 0), u32(...Array.from({ length: frames }, () => 3)));
    return join(
        box("moof", box("mfhd", u32(0, 1)), box("traf", tfhd, tfdt, trun)),
        box("mdat", new Uint8Array(3 * frames)),
    );
}

export function join(...parts: Uint8Array[]): Uint8Array {
    const bytes = new Uint8Array(parts.reduce((sum, p) => sum + p.length, 0));
    let at = 0;
    for (const part of parts) {
        bytes.set(part, at);
        at += part.length;
    }
    return bytes;
}
