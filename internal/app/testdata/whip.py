"""A foreign WHIP client (RFC 9725) made of GStreamer's webrtcbin: sends a sine tone until it is ended or its time is up.

usage: whip.py URL BEARER FREQUENCY_HZ SECONDS
Prints "connected" once media flows, and the server's answer to DELETE at the end.
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

url, bearer, frequency, seconds = sys.argv[1:5]
Gst.init(None)
pipeline = Gst.parse_launch(
    f"audiotestsrc is-live=true wave=sine volume=0.3 freq={frequency} ! audio/x-raw,rate=48000,channels=1 ! opusenc bitrate=48000 "
    "! rtpopuspay pt=111 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=111 "
    "! webrtcbin name=w bundle-policy=max-bundle"
)
peer = pipeline.get_by_name("w")
loop = GLib.MainLoop()
session = None
failed = None


def fail(why):
    global failed
    failed = why
    loop.quit()


def request(method, address, body=None, **headers):
    headers["Authorization"] = "Bearer " + bearer
    r = urllib.request.Request(address, data=body, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    return urllib.request.urlopen(r, timeout=10)


def gathered(*_):
    if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
        return
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
        GLib.timeout_add(int(float(seconds) * 1000), loop.quit)
    elif s == GstWebRTC.WebRTCPeerConnectionState.FAILED:
        fail("connection failed")


peer.connect("on-negotiation-needed", lambda e: e.emit("create-offer", None, Gst.Promise.new_with_change_func(created)))
peer.connect("notify::ice-gathering-state", gathered)
peer.connect("notify::connection-state", state)
GLib.timeout_add_seconds(60, lambda: fail("took longer than a minute"))
pipeline.set_state(Gst.State.PLAYING)
loop.run()
outcome = failed  # what the server's goodbye does to the connection is no failure
if session:
    with request("DELETE", session) as r:
        print("deleted", r.status, flush=True)
pipeline.set_state(Gst.State.NULL)
if outcome:
    sys.exit(outcome)
