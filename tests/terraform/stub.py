"""Providers that know their schema and nothing else, for a terraform that must not reach any registry.

They speak the plugin protocol, version 5, and terraform finds them by TF_REATTACH_PROVIDERS: it takes such a provider
as it is, without a download, a lock file or a checksum. A plan is what was asked for, and whatever is computed is known
after an apply that never comes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import grpc
import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PROTOCOL: Final = 5
SERVICE: Final = "tfplugin5.Provider"
# The messages of the protocol, with those fields only that are used here: name, number, type, and * for a list.
MESSAGES: Final = """
Empty
DynamicValue    msgpack 1 bytes | json 2 bytes
Diagnostic      severity 1 int32 | summary 2 string | detail 3 string
Attribute       name 1 string | type 2 bytes | required 4 bool | optional 5 bool | computed 6 bool
Block           version 1 int64 | attributes 2 Attribute * | block_types 3 NestedBlock *
NestedBlock     type_name 1 string | block 2 Block | nesting 3 int32 | min_items 4 int64 | max_items 5 int64
Schema          version 1 int64 | block 2 Block
NamedSchema     key 1 string | value 2 Schema
Schemas         provider 1 Schema | resource_schemas 2 NamedSchema * | data_source_schemas 3 NamedSchema *
Config          config 1 DynamicValue
PreparedConfig  prepared_config 1 DynamicValue
TypedConfig     type_name 1 string | config 2 DynamicValue
Diagnostics     diagnostics 1 Diagnostic *
State           state 1 DynamicValue
Stopped         error 1 string
PlanRequest     type_name 1 string | proposed_new_state 3 DynamicValue
Plan            planned_state 1 DynamicValue | legacy_type_system 5 bool
"""
NESTING: Final = {"single": 1, "list": 2, "set": 3}
UNKNOWN: Final = msgspec.msgpack.Ext(0, b"\0")
"""A value that is known after an apply, as terraform writes it."""

Schema = Mapping[str, Any]
Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""What a data source or a resource makes of its configuration: the values of what is computed."""


@cache
def _messages() -> dict[str, Any]:
    """The class of each message."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="stub.proto", package="tfplugin5", syntax="proto3")
    for line in MESSAGES.strip().splitlines():
        name, _, fields = line.partition(" ")
        message = file.message_type.add(name=name)
        for field in filter(None, map(str.strip, fields.split("|"))):
            called, number, kind, *many = field.split()
            scalar = getattr(kinds, f"TYPE_{kind.upper()}", None)
            made = message.field.add(
                name=called,
                number=int(number),
                type=scalar or kinds.TYPE_MESSAGE,
                label=kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL,
            )
            if scalar is None:
                made.type_name = f".tfplugin5.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        each.name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfplugin5.{each.name}"))
        for each in file.message_type
    }


def _block(block: Schema) -> Any:
    made = _messages()["Block"]()
    for name, each in block["attributes"].items():
        flags = {flag: True for flag in ("required", "optional", "computed") if each.get(flag)}
        made.attributes.add(name=name, type=json.dumps(each["type"]).encode(), **flags)
    for name, each in block["block_types"].items():
        made.block_types.add(
            type_name=name,
            block=_block(each["block"]),
            nesting=NESTING[each["nesting_mode"]],
            min_items=each.get("min_items", 0),
            max_items=each.get("max_items", 0),
        )
    return made


def _schemas(schema: Schema) -> Any:
    of = _messages()
    made = of["Schemas"](provider=of["Schema"](block=_block(schema["provider"])))
    for kind in ("resource_schemas", "data_source_schemas"):
        for name, block in schema[kind].items():
            getattr(made, kind).add(key=name, value=of["Schema"](block=_block(block)))
    return made


def _value(packed: Any) -> Any:
    return msgspec.msgpack.decode(packed.msgpack)


def _packed(value: Any) -> Any:
    return _messages()["DynamicValue"](msgpack=msgspec.msgpack.encode(value))


def _planned(block: Schema, value: dict[str, Any]) -> dict[str, Any]:
    """The value, with what is computed and not given being unknown."""
    for name, attribute in block["attributes"].items():
        if attribute.get("computed") and value.get(name) is None:
            value[name] = UNKNOWN
    for name, nested in block["block_types"].items():
        inner = value.get(name)
        for each in inner if isinstance(inner, list) else [inner]:
            if isinstance(each, dict):
                _planned(nested["block"], each)
    return value


class _Provider:
    def __init__(self, schema: Schema, answers: Mapping[str, Answer], made: Mapping[str, Answer]) -> None:
        self._schema = schema
        self._answers = answers
        self._made = made

    def handlers(self) -> dict[str, tuple[str, Callable[[Any, Any], Any]]]:
        """The request's message, and what answers it, by the name of the method."""
        of = _messages()
        schemas = _schemas(self._schema)
        nothing = of["Diagnostics"]()
        return {
            "GetSchema": ("Empty", lambda request, context: schemas),
            "PrepareProviderConfig": ("Config", lambda r, context: of["PreparedConfig"](prepared_config=r.config)),
            "Configure": ("Empty", lambda request, context: nothing),
            "ValidateResourceTypeConfig": ("TypedConfig", lambda request, context: nothing),
            "ValidateDataSourceConfig": ("TypedConfig", lambda request, context: nothing),
            "PlanResourceChange": ("PlanRequest", self._plan),
            "ReadDataSource": ("TypedConfig", self._read),
            "Stop": ("Empty", lambda request, context: of["Stopped"]()),
        }

    def _plan(self, request: Any, context: Any) -> Any:
        state = _value(request.proposed_new_state)
        planned = request.proposed_new_state
        if state is not None:
            if request.type_name in self._made:
                state.update(self._made[request.type_name](state))
            planned = _packed(_planned(self._schema["resource_schemas"][request.type_name], state))
        # Without it, terraform refuses a plan that differs from what was asked for in the smallest way.
        return _messages()["Plan"](planned_state=planned, legacy_type_system=True)

    def _read(self, request: Any, context: Any) -> Any:
        state = _value(request.config)
        state.update(self._answers[request.type_name](state))
        return _messages()["State"](state=_packed(state))


@contextmanager
def providers(
    schemas: Mapping[str, Schema], answers: Mapping[str, Answer], made: Mapping[str, Answer] = {}
) -> Iterator[dict[str, str]]:
    """Serves a provider for each schema; yields the variables that lead terraform to them and nowhere else. `answers`
    are those of data sources, by their type; `made` what resources of a type will be once they are made, as far as a
    plan is to know it already."""
    servers, reattach = [], {}
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    try:
        for name, schema in schemas.items():
            server = grpc.server(futures.ThreadPoolExecutor(8), options=unlimited)
            methods = {
                method: grpc.unary_unary_rpc_method_handler(
                    answer, _messages()[request].FromString, lambda message: message.SerializeToString()
                )
                for method, (request, answer) in _Provider(schema, answers, made).handlers().items()
            }
            server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            servers.append(server)
            reattach[f"hashicorp/{name}"] = {
                "Protocol": "grpc",
                "ProtocolVersion": PROTOCOL,
                "Pid": os.getpid(),
                "Test": True,
                "Addr": {"Network": "tcp", "String": f"127.0.0.1:{port}"},
            }
        yield {"TF_REATTACH_PROVIDERS": json.dumps(reattach), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    finally:
        for server in servers:
            server.stop(None).wait()
