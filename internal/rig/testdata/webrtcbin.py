"""A foreign WebRTC client made of GStreamer's webrtcbin.

usage: webrtcbin.py whep URL SECONDS FILE
    listens for some seconds and writes what it hears to a file, as signed 16-bit samples, 48 kHz, mono
usage: webrtcbin.py whip URL SECONDS FREQUENCY_HZ BEARER
    speaks (RFC 9725): sends a sine tone until it is ended or its time is up
Prints "connected" once the connection is up, and the server's answer to DELETE at the end.
"""
import sys
import urllib.error
import urllib.request
from urllib.parse import urljoin

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

way, url, seconds = sys.argv[1:4]
Gst.init(None)
loop = GLib.MainLoop()
bearer = None
session = None
failed = None


def fail(why):
    global failed
    failed = why
    loop.quit()


def request(method, address, body=None, **headers):
    if bearer:
        headers["Authorization"] = "Bearer " + bearer
    r = urllib.request.Request(address, data=body, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return urllib.request.urlopen(r, timeout=10)


def gathered(*_):
    if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        GLib.idle_add(offer)


def offer():
    global session
    sdp = peer.get_property("local-description").sdp.as_text()
    try:
        with request("POST", url, sdp.encode(), Content_Type="application/sdp") as answer:
            session = urljoin(url, answer.headers["Location"])
            text = answer.read()
    except urllib.error.HTTPError as e:
        return fail(f"{e.code} {e.read().decode()}")
    _, message = GstSdp.SDPMessage.new()
    GstSdp.sdp_message_parse_buffer(text, message)
    peer.emit("set-remote-description", GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message), None)
    return False


def created(promise, *_):
    promise.wait()
    reply = promise.get_reply()  # owns the description
    peer.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())


def state(*_):
    s = peer.get_property("connection-state")
    if s == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
        print("connected", flush=True)
        GLib.source_remove(patience)
        GLib.timeout_add(int(float(seconds) * 1000), loop.quit)
    elif s == GstWebRTC.WebRTCPeerConnectionState.FAILED:
        fail("connection failed")


def speaker(frequency):
    pipeline = Gst.parse_launch(
        f"audiotestsrc is-live=true wave=sine volume=0.3 freq={frequency} ! audio/x-raw,rate=48000,channels=1 ! opusenc bitrate=48000 "
        "! rtpopuspay pt=111 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 "
        "! webrtcbin name=w bundle-policy=max-bundle"
    )
    return pipeline, pipeline.get_by_name("w")


def listener(path):
    pipeline = Gst.Pipeline.new(None)
    w = Gst.ElementFactory.make("webrtcbin", "w")
    w.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
    pipeline.add(w)

    def heard(_, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        sink = Gst.parse_bin_from_description(
            "rtpopusdepay ! opusdec ! audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1 "
            f"! filesink location={path} sync=false",
            True,
        )
        pipeline.add(sink)
        sink.sync_state_with_parent()
        pad.link(sink.get_static_pad("sink"))

    w.connect("pad-added", heard)
    return pipeline, w


if way == "whip":
    pipeline, peer = speaker(sys.argv[4])
    bearer = sys.argv[5]
else:
    pipeline, peer = listener(sys.argv[4])
peer.connect("on-negotiation-needed", lambda e: e.emit("create-offer", None, Gst.Promise.new_with_change_func(created)))
peer.connect("notify::ice-gathering-state", gathered)
peer.connect("notify::connection-state", state)
if way == "whep":
    caps = Gst.Caps.from_string("application/x-rtp,media=audio,encoding-name=OPUS,payload=111,clock-rate=48000,encoding-params=(string)2")
    peer.emit("add-transceiver", GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY, caps)  # asks for negotiation
patience = GLib.timeout_add_seconds(60, lambda: fail("took longer than a minute to connect"))
pipeline.set_state(Gst.State.PLAYING)
loop.run()
outcome = failed  # what the server's goodbye does to the connection is no failure
if session:
    with request("DELETE", session) as r:
        print("deleted", r.status, flush=True)
pipeline.set_state(Gst.State.NULL)
if outcome:
    sys.exit(outcome)
