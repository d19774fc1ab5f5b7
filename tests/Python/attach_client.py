#!/usr/bin/python3
"""A guest in one file: plugs itself into a VNetMesh network by gRPC and answers ARP and ping for one address.

It shows all that a client of Attach needs, in any language: a hello, then batches of Ethernet frames both ways. The switch completes
checksums and cuts large segments for a client that offers no offloads, so plain frames are all there is to handle.

    apt-get install python3-grpcio python3-grpc-tools
    /usr/bin/python3 tests/Python/attach_client.py --network vmnet8 --address 192.168.108.100

and from another guest of that network: ping 192.168.108.100. Ctrl-C unplugs it. The messages are made from protos/ when it starts.
"""

import argparse
import os
import pathlib
import queue
import signal
import struct
import sys
import tempfile

import grpc
import grpc_tools.protoc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTOS = pathlib.Path(__file__).resolve().parents[2] / "protos"
WELL_KNOWN_PROTOS = pathlib.Path(grpc_tools.protoc.__file__).parent / "_proto"

ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ARP_REQUEST, ARP_REPLY = 1, 2
PROTOCOL_ICMP = 1
ECHO_REQUEST, ECHO_REPLY = 8, 0
BROADCAST = b"\xff" * 6

# A frame that leaves waits here until gRPC sends it. What finds no room is lost, as on any link.
MOST_WAITING = 256
MOST_IN_BATCH = 256


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Station:
    """Answers for one address. Whatever it is given, it returns a frame or None, and never raises."""

    def __init__(self, mac: bytes, address: bytes):
        self.mac = mac
        self.address = address

    def announcement(self) -> bytes:
        """Tells the switch where we are, and others who we are (RFC 5227, 2.3)."""
        return self._arp(BROADCAST, ARP_REQUEST, b"\0" * 6, self.address)

    def answer(self, frame: bytes):
        if len(frame) < 14 or frame[:6] not in (self.mac, BROADCAST):
            return None
        ethertype = struct.unpack_from("!H", frame, 12)[0]
        if ethertype == ETHERTYPE_ARP:
            return self._answer_arp(frame[14:])
        if ethertype == ETHERTYPE_IPV4:
            return self._answer_echo(frame[6:12], frame[14:])
        return None

    def _answer_arp(self, packet: bytes):
        # RFC 826: Ethernet, IPv4, 6 and 4 octets, the operation.
        if len(packet) < 28 or struct.unpack_from("!HHBBH", packet) != (1, ETHERTYPE_IPV4, 6, 4, ARP_REQUEST):
            return None
        sender_mac, sender, target = packet[8:14], packet[14:18], packet[24:28]
        if target != self.address or sender == self.address:
            return None
        return self._arp(sender_mac, ARP_REPLY, sender_mac, sender)

    def _arp(self, destination: bytes, operation: int, target_mac: bytes, target: bytes) -> bytes:
        return (destination + self.mac + struct.pack("!HHHBBH", ETHERTYPE_ARP, 1, ETHERTYPE_IPV4, 6, 4, operation)
                + self.mac + self.address + target_mac + target)

    def _answer_echo(self, sender_mac: bytes, packet: bytes):
        # RFC 791 and 792. Fragments are not put together.
        if len(packet) < 20:
            return None
        header_length, total_length = (packet[0] & 0x0F) * 4, struct.unpack_from("!H", packet, 2)[0]
        fragment = struct.unpack_from("!H", packet, 6)[0] & 0x3FFF
        if packet[0] >> 4 != 4 or header_length < 20 or total_length < header_length + 8 or total_length > len(packet) or fragment:
            return None
        if packet[9] != PROTOCOL_ICMP or packet[16:20] != self.address or internet_checksum(packet[:header_length]):
            return None
        message = packet[header_length:total_length]
        if message[0] != ECHO_REQUEST or internet_checksum(message):
            return None
        reply = struct.pack("!BBH", ECHO_REPLY, 0, 0) + message[4:]
        reply = reply[:2] + struct.pack("!H", internet_checksum(reply)) + reply[4:]
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(reply), 0, 0, 64, PROTOCOL_ICMP, 0) + self.address + packet[12:16]
        header = header[:10] + struct.pack("!H", internet_checksum(header)) + header[12:]
        return sender_mac + self.mac + struct.pack("!H", ETHERTYPE_IPV4) + header + reply


def load_messages():
    """The message types of the switch, by their short names, from its .proto file."""
    with tempfile.NamedTemporaryFile(suffix=".binpb") as file:
        arguments = ["protoc", f"-I{PROTOS}", f"-I{WELL_KNOWN_PROTOS}", "--include_imports", f"--descriptor_set_out={file.name}", "vnetmesh/v1/switch.proto"]
        if grpc_tools.protoc.main(arguments) != 0:
            raise SystemExit(f"attach_client.py: {PROTOS}/vnetmesh/v1/switch.proto cannot be compiled")
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
    pool = descriptor_pool.DescriptorPool()
    for one in files:
        pool.Add(one)
    # Newer versions of protobuf have a function for it, older ones a method.
    make = getattr(message_factory, "GetMessageClass", None) or message_factory.MessageFactory(pool).GetPrototype
    return {name: make(pool.FindMessageTypeByName(f"vnetmesh.v1.{name}")) for name in ("AttachRequest", "AttachResponse")}


def requests(AttachRequest, hello, outgoing):
    """What we send: the hello, then what is in the queue, as many frames in a batch as there are. None ends the stream."""
    yield AttachRequest(hello=hello)
    while True:
        frames = [outgoing.get()]
        while len(frames) < MOST_IN_BATCH and not outgoing.empty():
            frames.append(outgoing.get())
        batch = [{"data": frame} for frame in frames if frame is not None]
        if batch:
            yield AttachRequest(frames={"frames": batch})
        if None in frames:
            return


def serve(messages, options) -> int:
    station = Station(options.mac, options.address)
    hello = {"network": f"networks/{options.network}", "port_id": options.port, "owner": "attach_client.py",
             "mac": ":".join(f"{octet:02x}" for octet in options.mac)}
    outgoing = queue.Queue(MOST_WAITING)
    socket = os.path.join(os.environ.get("VNETMESH_RUN_DIR", "/run/vnetmesh"), "switch.sock")
    # gRPC would name the socket's path as the authority, which HTTP/2 does not allow.
    with grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")]) as channel:
        attach = channel.stream_stream("/vnetmesh.v1.PortService/Attach", request_serializer=messages["AttachRequest"].SerializeToString,
                                       response_deserializer=messages["AttachResponse"].FromString)
        call = attach(requests(messages["AttachRequest"], hello, outgoing))
        for end in (signal.SIGINT, signal.SIGTERM):
            signal.signal(end, lambda *_: call.cancel())
        try:
            for response in call:
                if response.HasField("welcome"):
                    print(f"attached as {response.welcome.port.name}", flush=True)
                    outgoing.put(station.announcement())
                for frame in response.frames.frames:
                    answer = station.answer(frame.data)
                    if answer is not None and not outgoing.full():
                        outgoing.put(answer)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.CANCELLED:
                return 0
            print(f"attach_client.py: {error.code().name}: {error.details()}", file=sys.stderr)
            return 1
        finally:
            call.cancel()
            if not outgoing.full():
                outgoing.put(None)
    return 0


def parse_arguments():
    def mac(text):
        octets = bytes.fromhex(text.replace(":", ""))
        if len(octets) != 6:
            raise ValueError(text)
        return octets

    def address(text):
        parts = [int(part) for part in text.split(".")]
        if len(parts) != 4:
            raise ValueError(text)
        return bytes(parts)

    parser = argparse.ArgumentParser(description="Plugs itself into a VNetMesh network and answers ARP and ping. VNETMESH_RUN_DIR says where the switch is.")
    parser.add_argument("--network", default="vmnet8")
    parser.add_argument("--address", type=address, required=True, help="an address of the network's subnet, outside of its DHCP range")
    parser.add_argument("--port", default="attach-client", help="name of the port")
    parser.add_argument("--mac", type=mac, default="02:56:4e:50:59:01")
    return parser.parse_args()


def main() -> int:
    options = parse_arguments()
    return serve(load_messages(), options)


if __name__ == "__main__":
    sys.exit(main())
