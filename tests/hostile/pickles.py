"""Hand-made hostile network pickles. Every one must be refused."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

from .assembler import (
    APPEND,
    APPENDS,
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_SET,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    NONE,
    ORDERED,
    P2,
    P3,
    P4,
    PERSID,
    REDUCE,
    SETITEM,
    SETITEMS,
    STOP,
    TUPLE1,
    TUPLE2,
    call,
    file_with,
    get,
    many,
    mapping,
    module,
    number,
    put,
    raw,
    ref,
    stack_ref,
    state,
    storage,
    storage_pid,
    stream,
    tensor,
    text,
)


def executing(canary: Path) -> dict[str, bytes]:
    """Files that run a command under an unrestricted unpickler."""
    command = text(f"touch {canary}")
    system = ref("posix", "system")
    shell = call(system, command)
    code = text(f"open({str(canary)!r}, 'w')")
    inner = P2 + shell + STOP
    load_bytes = ref("torch.storage", "_load_from_bytes")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("archive/data.pkl", inner)
        z.writestr("archive/version", "3")
    inst = b"(" + command + b"iposix\nsystem\n"
    return {
        "system": P3 + shell + STOP,
        "system_p2": P2 + shell + STOP,
        "system_stack_global": P4 + call(stack_ref("posix", "system"), command) + STOP,
        "system_in_entry": file_with(shell),
        "system_in_state": file_with(module(state(evil=shell))),
        "system_as_key_value": P3 + EMPTY_DICT + text("a") + shell + SETITEM + STOP,
        "eval": P3 + call(ref("builtins", "eval"), code) + STOP,
        "exec_py2": P2 + call(ref("__builtin__", "eval"), code) + STOP,
        "getattr": P3 + call(ref("builtins", "getattr"), ref("os", "system"), text("x")) + STOP,
        "newobj_popen": P3 + ref("subprocess", "Popen") + many(command) + NEWOBJ + STOP,
        "inst_opcode": P2 + inst + STOP,
        "obj_opcode": P2 + MARK + system + command + b"o" + STOP,
        "dotted_name": P4 + call(stack_ref("torch.serialization", "os.system"), command) + STOP,
        "dotted_allowed": P4
        + call(stack_ref("collections", "OrderedDict.fromkeys"), command)
        + STOP,
        "allowed_module_other_name": P3 + call(ref("torch.storage", "os"), command) + STOP,
        "import_dotted_name": P3
        + call(ref("torch._utils", "_import_dotted_name"), text("os.system"))
        + STOP,
        "persistence_other_name": P3
        + call(ref("torch_utils.persistence", "_src_to_module"), code)
        + STOP,
        "storage_reduce": file_with(call(load_bytes, raw(inner))),
        "storage_stream": file_with(call(load_bytes, raw(stream(shell, bytes(16), numel=4)))),
        "storage_magic": file_with(call(load_bytes, raw(inner + inner + inner + inner + inner))),
        "storage_zip": file_with(call(load_bytes, raw(archive.getvalue()))),
        "storage_matryoshka": file_with(
            call(load_bytes, raw(stream(call(load_bytes, raw(inner)), bytes(16), numel=4)))
        ),
        "storage_keys": file_with(
            call(load_bytes, raw(stream(storage_pid(4), bytes(16), numel=4, keys=shell)))
        ),
        "numpy_reconstruct": P3
        + call(ref("numpy.core.multiarray", "_reconstruct"), system, many(number(0)), raw(b"b"))
        + STOP,
        "setstate_system": P3
        + ORDERED
        + mapping(__setstate__=system)
        + BUILD
        + command
        + BUILD
        + STOP,
        "easydict_build": P3
        + ref("dnnlib.util", "EasyDict")
        + EMPTY_TUPLE
        + NEWOBJ
        + mapping(__class__=system)
        + BUILD
        + STOP,
        "codecs_other_codec": P2 + call(ref("_codecs", "encode"), code, text("rot13")) + STOP,
        "codecs_decode": P2 + call(ref("_codecs", "decode"), raw(inner), text("zip")) + STOP,
        "pickle_loads": P3 + call(ref("_pickle", "loads"), raw(inner)) + STOP,
        "extension_registry": P2 + b"\x82\x01" + EMPTY_TUPLE + REDUCE + STOP,
        "persistent_id_text": P2 + b"Pposix.system\n" + STOP,
        "persistent_id_object": P3 + shell + PERSID + STOP,
        "next_buffer": b"\x80\x05\x97" + STOP,
    }


def _shared_lists(depth: int) -> bytes:
    """A list that holds the one below it twice: 2**depth elements when walked."""
    out = EMPTY_LIST
    for i in range(depth):
        out = EMPTY_LIST + MARK + out + put(i) + get(i) + APPENDS
    return out


def _shared_tuples(depth: int) -> bytes:
    out = text("x")
    for i in range(depth):
        out += put(i) + get(i) + TUPLE2
    return out


def _nested_modules(depth: int, *, twice: bool) -> bytes:
    out = module(state())
    for i in range(depth):
        second = text("b") + get(i) if twice else b""
        out = module(
            state(modules=EMPTY_DICT + MARK + text("a") + out + put(i) + second + SETITEMS)
        )
    return out


def exhausting() -> dict[str, bytes]:
    """Files that cost much more than they weigh when they are believed."""
    dag, pair = _shared_lists(60), _shared_tuples(60)
    kwargs = mapping(z_dim=number(8), mapping_kwargs=dag)
    loop = EMPTY_DICT + put(0) + text("a") + get(0) + SETITEM
    long_text = text("\x7f" * 60_000) + put(0)
    again = ref("_codecs", "encode") + get(0) + text("latin1") + TUPLE2 + REDUCE
    items = EMPTY_LIST + MARK + number(1) * 20_000 + APPENDS + put(0)
    again_set = ref("builtins", "set") + get(0) + TUPLE1 + REDUCE
    pairs = EMPTY_LIST + MARK + (EMPTY_LIST + MARK + number(1) + NONE + APPENDS) * 5000 + APPENDS
    again_pairs = ref("collections", "OrderedDict") + get(0) + TUPLE1 + REDUCE
    held = storage(4) + put(0)
    again_storage = ref("torch.storage", "_load_from_bytes") + get(1) + TUPLE1 + REDUCE
    content = raw(stream(storage_pid(4), bytes(16), numel=4)) + put(1)
    colliding = b"".join(number((2**61 - 1) * i) + NONE for i in range(1, 3000))
    return {
        "memo_array": b"\x80\x02Nr\xff\xff\xff\x0f.",
        "memo_array_max": b"\x80\x02Nr\xff\xff\xff\xff.",
        "hash_shared_tuple": P2 + EMPTY_DICT + pair + NONE + SETITEM + STOP,
        "hash_shared_tuple_set": P4 + EMPTY_SET + MARK + pair + b"\x90" + STOP,
        "hash_collisions": P2 + EMPTY_DICT + MARK + colliding + SETITEMS + STOP,
        "shared_lists": file_with(dag),
        "shared_lists_in_kwargs": file_with(module(state(_init_kwargs=kwargs))),
        "shared_modules": file_with(_nested_modules(60, twice=True)),
        "own_submodule": P3
        + EMPTY_DICT
        + MARK
        + text("G_ema")
        + module(state(modules=EMPTY_DICT + put(9)))
        + put(8)
        + text("later")
        + (get(9) + text("a") + get(8) + SETITEM)
        + SETITEMS
        + STOP,
        "dict_in_itself": file_with(loop),
        "deep_tuples": P2 + NONE + TUPLE1 * 200_000 + STOP,
        "deep_lists": P2 + EMPTY_LIST * 200_000 + APPEND * 199_999 + STOP,
        "deep_modules": file_with(_nested_modules(40, twice=False)),
        "million_dicts": P2 + MARK + EMPTY_DICT * 1_000_100 + b"t" + STOP,
        "million_sets": P4 + MARK + EMPTY_SET * 1_000_100 + b"t" + STOP,
        "million_memos": P4 + NONE + b"\x94" * 1_000_100 + STOP,
        "encode_again": P2 + MARK + long_text + again * 20_000 + b"t" + STOP,
        "set_again": P3 + MARK + items + again_set * 5_000 + b"t" + STOP,
        "pairs_again": P3 + MARK + pairs + put(0) + again_pairs * 5_000 + b"t" + STOP,
        "storage_again": P3 + MARK + content + again_storage * 100_000 + b"t" + STOP,
        "tensors_again": P3 + MARK + held + tensor(get(0)) * 60_000 + b"t" + STOP,
        "huge_bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x" + STOP,
        "huge_bytes_32": P3 + b"B\xff\xff\xff\xffx" + STOP,
        "huge_text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x" + STOP,
        "huge_bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x" + STOP,
        "huge_integer": P2 + b"\x8b\xff\xff\xff\x7f" + b"\xff" * 100 + STOP,
        "long_integer": P2 + b"\x8a\xff" + b"\xff" * 255 + STOP,
        "decimal_integer": P2 + b"I" + b"9" * 100_000 + b"\n" + STOP,
        "huge_frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 63) + STOP,
        "long_name": P2 + b"c" + b"a" * 1_000_000 + STOP,
        "huge_array": P3
        + call(
            ref("numpy.core.multiarray", "_reconstruct"),
            ref("numpy", "ndarray"),
            many(number(0)),
            raw(b"b"),
        )
        + many(
            number(1),
            many(number(1 << 30), number(1 << 30)),
            call(ref("numpy", "dtype"), text("f8"), b"\x89", b"\x88"),
            b"\x89",
            raw(b""),
        )
        + BUILD
        + STOP,
    }


def malformed() -> dict[str, bytes]:
    """Files that are wrong in a place where a careless reader would read past the end."""
    held = storage(4)

    def view(*args: bytes) -> bytes:
        return file_with(module(state(parameters=mapping(w=tensor(held, *args)))))

    def broken_stream(**changes: object) -> bytes:
        options = {"numel": 4, **changes}
        obj = options.pop("obj", storage_pid(4))
        data = options.pop("data", bytes(16))
        content = stream(obj, data, **options)  # type: ignore[arg-type]
        inner = call(ref("torch.storage", "_load_from_bytes"), raw(content))
        return file_with(module(state(parameters=mapping(w=tensor(inner)))))

    zero, one, four = number(0), number(1), number(4)
    good = module(state())
    dtype = call(ref("numpy", "dtype"), text("f8"), b"\x89", b"\x88")
    array = call(
        ref("numpy.core.multiarray", "_reconstruct"), ref("numpy", "ndarray"), many(zero), raw(b"b")
    )
    little = many(number(3), text("<"), NONE, NONE, NONE, number(-1), number(-1), zero)
    big = many(number(3), text(">"), NONE, NONE, NONE, number(-1), number(-1), zero)
    fields = many(number(3), text("|"), NONE, many(text("a")), EMPTY_DICT, four, one, zero)
    obj_dtype = call(ref("numpy", "dtype"), text("O8"), b"\x89", b"\x88")
    network = ref("dnnlib.tflib.network", "Network") + EMPTY_TUPLE + NEWOBJ + EMPTY_DICT + BUILD
    sg3 = module(state(modules=mapping(input=module(state(buffers=mapping(freqs=tensor(held)))))))
    return {
        "stride_zero": view(zero, many(number(1 << 20), number(1 << 20)), many(zero, zero)),
        "stride_zero_one_more": view(zero, many(number(5)), many(zero)),
        "stride_negative": view(number(3), many(four), many(number(-1))),
        "offset_negative": view(number(-1), many(four), many(one)),
        "offset_beyond": view(one, many(four), many(one)),
        "offset_huge": view(number(1 << 62), many(one), many(one)),
        "size_negative": view(zero, many(number(-4)), many(one)),
        "size_wraps": view(zero, many(number(1 << 32), number(1 << 32)), many(one, one)),
        "size_boolean": view(zero, many(b"\x88"), many(one)),
        "size_text": view(zero, many(text("4")), many(one)),
        "size_list": view(zero, EMPTY_LIST + four + APPEND, many(one)),
        "size_and_stride_differ": view(zero, many(four), many(one, one)),
        "stride_beyond": view(zero, many(number(2), number(2)), many(four, one)),
        "nine_dimensions": view(zero, many(*[one] * 9), many(*[one] * 9)),
        "tensor_hooks": view(zero, many(four), many(one), b"\x89", mapping(a=one)),
        "tensor_of_text": file_with(module(state(parameters=mapping(w=tensor(text("abc")))))),
        "tensor_three_arguments": file_with(
            call(ref("torch._utils", "_rebuild_tensor_v2"), held, zero, many(four))
        ),
        "parameter_of_parameter": file_with(
            call(ref("torch._utils", "_rebuild_parameter"), one, b"\x89", ORDERED)
        ),
        "stream_numel": broken_stream(count=5),
        "stream_numel_negative": broken_stream(count=-1),
        "stream_short": broken_stream(data=bytes(15)),
        "stream_long": broken_stream(data=bytes(17)),
        "stream_big_endian": broken_stream(little=b"\x89"),
        "stream_no_endian": broken_stream(little=NONE),
        "stream_magic": broken_stream(magic=1),
        "stream_version": broken_stream(version=1002),
        "stream_no_keys": broken_stream(keys=EMPTY_LIST),
        "stream_other_key": broken_stream(keys=EMPTY_LIST + text("1") + APPEND),
        "stream_key_list": broken_stream(keys=EMPTY_LIST + EMPTY_LIST + APPEND),
        "stream_two_keys": broken_stream(keys=EMPTY_LIST + MARK + text("0") + text("0") + APPENDS),
        "stream_view": broken_stream(obj=storage_pid(4, extra=many(text("1"), zero, four))),
        "stream_no_storage": broken_stream(obj=one, keys=EMPTY_LIST),
        "stream_huge": broken_stream(obj=storage_pid(1 << 39)),
        "stream_type": broken_stream(obj=storage_pid(4, "ComplexFloatStorage")),
        "stream_bad_pid": broken_stream(obj=many(text("module"), one) + PERSID),
        "storage_of_text": file_with(call(ref("torch.storage", "_load_from_bytes"), text("abc"))),
        "storage_outside": file_with(module(state(parameters=mapping(w=tensor(storage_pid(4)))))),
        "version_seven": file_with(module(state(), version=7)),
        "meta_missing": file_with(
            call(ref("torch_utils.persistence", "_reconstruct_persistent_obj"), EMPTY_DICT)
        ),
        "meta_no_dict": file_with(
            call(ref("torch_utils.persistence", "_reconstruct_persistent_obj"), one)
        ),
        "state_list": file_with(module(EMPTY_LIST)),
        "class_name": file_with(module(state(), name="a" * 100)),
        "member_name": file_with(
            module(state(parameters=EMPTY_DICT + text("a.b") + held + SETITEM))
        ),
        "member_number": file_with(module(state(parameters=EMPTY_DICT + one + held + SETITEM))),
        "module_as_parameter": file_with(module(state(parameters=mapping(a=good)))),
        "no_modules": file_with(module(mapping(_parameters=EMPTY_DICT))),
        "empty_module": file_with(good),
        "g_ema_number": file_with(one),
        "g_ema_none": file_with(NONE),
        "top_list": P3 + EMPTY_LIST + STOP,
        "top_empty": P3 + EMPTY_DICT + STOP,
        "top_tensor": P3 + tensor(held) + STOP,
        "tensorflow_era": P3 + many(network, network, network) + STOP,
        "tensorflow_single": P3 + network + STOP,
        "stylegan3": file_with(module(state(modules=mapping(synthesis=sg3)))),
        "big_endian_scalar": P3 + dtype + big + BUILD + STOP,
        "structured_dtype": P3 + dtype + fields + BUILD + STOP,
        "object_array": P3
        + array
        + many(one, many(one), obj_dtype, b"\x89", EMPTY_LIST + NONE + APPEND)
        + BUILD
        + STOP,
        "array_short": P3
        + array
        + many(one, many(number(3)), dtype + little + BUILD, b"\x89", raw(bytes(16)))
        + BUILD
        + STOP,
        "scalar_short": P3
        + call(ref("numpy.core.multiarray", "scalar"), dtype, raw(bytes(4)))
        + STOP,
        "bytes_beyond_latin1": P2
        + call(ref("_codecs", "encode"), text("\u0100"), text("latin1"))
        + STOP,
        "not_utf8": P3 + b"X\x02\x00\x00\x00\xff\xfe" + STOP,
        "surrogate": P3 + b"X\x03\x00\x00\x00\xed\xa0\x80" + STOP,
        "name_not_ascii": P3 + b"c\xff\xfe\nx\n" + STOP,
        "trailing": file_with(good) + b"\0",
        "two_pickles": file_with(good) + file_with(good),
        "protocol_zero": b"(dp0\n.",
        "protocol_one": b"}q\x00.",
        "protocol_six": b"\x80\x06}.",
        "protocol_twice": P3 + P3 + EMPTY_DICT + STOP,
        "only_proto": P3,
        "only_stop": P3 + STOP,
        "two_values": P3 + NONE + NONE + STOP,
        "open_mark": P3 + MARK + EMPTY_DICT + STOP,
        "no_mark": P3 + EMPTY_LIST + APPENDS + STOP,
        "below_mark": P3 + NONE + MARK + TUPLE1 + STOP,
        "no_memo": P3 + get(5) + STOP,
        "odd_items": P3 + EMPTY_DICT + MARK + text("a") + SETITEMS + STOP,
        "append_to_dict": P3 + EMPTY_DICT + NONE + APPEND + STOP,
        "set_item_of_list": P3 + EMPTY_LIST + text("a") + NONE + SETITEM + STOP,
        "set_item_of_tuple": P3 + EMPTY_TUPLE + text("a") + NONE + SETITEM + STOP,
        "add_to_list": P4 + EMPTY_LIST + MARK + NONE + b"\x90" + STOP,
        "key_none": P3 + EMPTY_DICT + NONE + NONE + SETITEM + STOP,
        "key_float": P3 + EMPTY_DICT + b"G" + bytes(8) + NONE + SETITEM + STOP,
        "key_list": P3 + EMPTY_DICT + EMPTY_LIST + NONE + SETITEM + STOP,
        "build_dict": P3 + EMPTY_DICT + EMPTY_DICT + BUILD + STOP,
        "build_module": P3 + good + EMPTY_DICT + BUILD + STOP,
        "call_text": P3 + call(text("os.system"), one) + STOP,
        "call_storage_type": P3 + call(ref("torch", "FloatStorage"), one) + STOP,
        "call_without_tuple": P3 + ref("collections", "OrderedDict") + EMPTY_LIST + REDUCE + STOP,
        "new_without_tuple": P3 + ref("dnnlib.util", "EasyDict") + EMPTY_LIST + NEWOBJ + STOP,
        "new_ordered_dict": P3 + ref("collections", "OrderedDict") + EMPTY_TUPLE + NEWOBJ + STOP,
        "global_of_bytes": P4 + raw(b"os") + raw(b"system") + b"\x93" + STOP,
        "web_page": b"<!DOCTYPE html><html><body>quota exceeded</body></html>",
        "web_page_spaces": b"\n\n  <html>",
        "gzip": b"\x1f\x8b\x08\x00" + bytes(100),
        "lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "text": b"this is no network\n" * 10,
        "zeros": bytes(4096),
        "ones": b"\xff" * 4096,
        "one_byte": b"\x80",
    }
