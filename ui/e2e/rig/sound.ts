import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const rate = 48_000;

const folder = mkdtempSync(join(tmpdir(), "earshot-sound-"));

/** Writes mono 16-bit PCM as a WAV file that Chromium takes for a microphone, and answers its path. */
export function wav(name: string, pcm: Float32Array): string {
    const b = Buffer.alloc(44 + pcm.length * 2);
    b.write("RIFF", 0);
    b.writeUInt32LE(36 + pcm.length * 2, 4);
    b.write("WAVEfmt ", 8);
    b.writeUInt32LE(16, 16);
    b.writeUInt16LE(1, 20);
    b.writeUInt16LE(1, 22);
    b.writeUInt32LE(rate, 24);
    b.writeUInt32LE(rate * 2, 28);
    b.writeUInt16LE(2, 32);
    b.writeUInt16LE(16, 34);
    b.write("data", 36);
    b.writeUInt32LE(pcm.length * 2, 40);
    pcm.forEach((v, i) => b.writeInt16LE(Math.round(Math.max(-1, Math.min(1, v)) * 32767), 44 + i * 2));
    const path = join(folder, `${name}.wav`);
    writeFileSync(path, b);
    return path;
}

/** A steady sine. Its length is a whole number of periods of any whole frequency, so that looping has no seam. */
export function tone(hertz: number, level = 0.25, seconds = 10): Float32Array {
    return Float32Array.from({ length: rate * seconds }, (_, i) => level * Math.sin((2 * Math.PI * hertz * i) / rate));
}

/** A sentence spoken by espeak-ng, 48 kHz mono. */
export function speech(text: string): Float32Array {
    const raw = join(folder, `speech-${text.length}.wav`);
    const at48 = join(folder, `speech-${text.length}-48.raw`);
    execFileSync("espeak-ng", ["-w", raw, "-s", "150", text]);
    execFileSync("ffmpeg", ["-v", "error", "-y", "-i", raw, "-ar", String(rate), "-ac", "1", "-f", "f32le", at48]);
    const b = readFileSync(at48);
    return new Float32Array(b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength));
}

/** Level of one frequency in dBFS of a sine (Goertzel). */
export function goertzel(pcm: Float32Array, hertz: number): number {
    const w = (2 * Math.PI * hertz) / rate;
    const c = 2 * Math.cos(w);
    let s1 = 0;
    let s2 = 0;
    for (const x of pcm) {
        const s = x + c * s1 - s2;
        s2 = s1;
        s1 = s;
    }
    const power = Math.max(0, s1 * s1 + s2 * s2 - c * s1 * s2);
    return 20 * Math.log10((2 * Math.sqrt(power)) / pcm.length + 1e-9);
}

/** The level of each frequency: the median over windows of 200 ms, so that a gap or a click does not decide. */
export function levels(pcm: Float32Array, ...hertz: number[]): number[] {
    const n = rate / 5;
    return hertz.map((f) => {
        const each: number[] = [];
        for (let i = 0; i + n <= pcm.length; i += n) each.push(goertzel(pcm.subarray(i, i + n), f));
        each.sort((a, b) => a - b);
        return each[Math.floor(each.length / 2)] ?? -180;
    });
}

/** Loudness over time: RMS in windows of `ms`. */
export function envelope(pcm: Float32Array, ms = 20): Float32Array {
    const n = (rate * ms) / 1000;
    return Float32Array.from({ length: Math.floor(pcm.length / n) }, (_, i) => {
        let sum = 0;
        for (let j = i * n; j < (i + 1) * n; j++) sum += (pcm[j] ?? 0) ** 2;
        return Math.sqrt(sum / n);
    });
}

/**
 * How much `heard` is like `said`, both as envelopes of 20 ms, `said` repeating: cut into stretches of 1.5 s, each stretch laid
 * where it fits best, and of these correlations the median. A player that stretched time between two stretches changes nothing.
 */
export function likeness(said: Float32Array, heard: Float32Array): number {
    const n = 75;
    const each: number[] = [];
    for (let i = 0; i + n <= heard.length; i += n) {
        const part = heard.subarray(i, i + n);
        let best = -1;
        for (let shift = 0; shift < said.length; shift++)
            best = Math.max(
                best,
                correlation(part, (j) => said[(j + shift) % said.length] ?? 0),
            );
        each.push(best);
    }
    each.sort((a, b) => a - b);
    return each[Math.floor(each.length / 2)] ?? -1;
}

function correlation(x: Float32Array, y: (i: number) => number): number {
    const n = x.length;
    let [sx, sy, xx, yy, xy] = [0, 0, 0, 0, 0];
    for (let i = 0; i < n; i++) {
        const a = x[i] ?? 0;
        const b = y(i);
        sx += a;
        sy += b;
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    return (xy - (sx * sy) / n) / Math.sqrt((xx - (sx * sx) / n) * (yy - (sy * sy) / n) + 1e-12);
}
