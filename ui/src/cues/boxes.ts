/** ISO BMFF boxes (ISO/IEC 14496-12, 4.2), as far as a player of our own chunks needs them. */

export interface Box {
    type: string;
    /** Offsets into the buffer: of the box, of what it holds, and past its end. */
    start: number;
    body: number;
    end: number;
}

/** The boxes that stand whole between two offsets; stops at the first that does not. */
export function* boxes(view: DataView, from = 0, to = view.byteLength): Generator<Box> {
    for (let start = from; start + 8 <= to;) {
        let size = view.getUint32(start);
        let body = start + 8;
        if (size === 1) {
            if (start + 16 > to) return;
            size = Number(view.getBigUint64(start + 8));
            body = start + 16;
        } else if (size === 0) {
            size = to - start;
        }
        const end = start + size;
        if (end < body || end > to) return;
        const type = String.fromCharCode(
            view.getUint8(start + 4),
            view.getUint8(start + 5),
            view.getUint8(start + 6),
            view.getUint8(start + 7),
        );
        yield { type, start, body, end };
        start = end;
    }
}

/** The first box along a path of types. */
export function find(view: DataView, path: string[], from = 0, to = view.byteLength): Box | undefined {
    for (const box of boxes(view, from, to)) {
        if (box.type !== path[0]) continue;
        return path.length === 1 ? box : find(view, path.slice(1), box.body, box.end);
    }
    return undefined;
}

export function viewOf(bytes: Uint8Array): DataView {
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** One moof with its mdat and what stands before it: where it lies, and when it plays, in samples of 48 kHz. */
export interface Chunk {
    start: number;
    end: number;
    time: number;
    samples: number;
}

/** The whole chunks of a message, in order. */
export function chunks(bytes: Uint8Array): Chunk[] {
    const view = viewOf(bytes);
    const found: Chunk[] = [];
    let start = 0;
    let open: { time: number; samples: number } | undefined;
    for (const box of boxes(view)) {
        if (box.type === "moof") open = timing(view, box);
        if (box.type !== "mdat" || !open) continue;
        found.push({ start, end: box.end, ...open });
        start = box.end;
        open = undefined;
    }
    return found;
}

/** Decode time (tfdt) and duration (frames counted in trun, 960 samples each) of a fragment. */
function timing(view: DataView, moof: Box): { time: number; samples: number } | undefined {
    const tfdt = find(view, ["traf", "tfdt"], moof.body, moof.end);
    const trun = find(view, ["traf", "trun"], moof.body, moof.end);
    if (!tfdt || !trun || trun.end - trun.body < 8) return undefined;
    const wide = view.getUint8(tfdt.body) === 1;
    if (tfdt.end - tfdt.body < (wide ? 12 : 8)) return undefined;
    const time = wide ? Number(view.getBigUint64(tfdt.body + 4)) : view.getUint32(tfdt.body + 4);
    return { time, samples: view.getUint32(trun.body + 4) * 960 };
}
