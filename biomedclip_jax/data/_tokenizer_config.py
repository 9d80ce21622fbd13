"""tokenizer_config.json beside a tokenizer: what it says is done, changes nothing here, or is refused.

transformers builds a BERT's, GPT-2's or CLIP's tokenizer from tokenizer.json and this file together, and where they
differ, this one counts. Sources: transformers 5.24 `tokenization_utils_tokenizers.py`, `tokenization_bert.py`,
`tokenization_gpt2.py`, `tokenization_llama.py`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biomedclip_jax.errors import UserError
from biomedclip_jax.support.fields import Fields, choice, flag, shown

if TYPE_CHECKING:
    import tokenizers

FILE = "tokenizer_config.json"
_SPECIAL, _ADDED_TOKENS = "special_tokens_map.json", "added_tokens.json"  # older files, which count if FILE lists no tokens
BERTS = ("BertTokenizer", "BertTokenizerFast", "CXRBertTokenizer")
ROBERTAS = tuple(f"{kind}Tokenizer{fast}" for kind in ("Roberta", "XLMRoberta", "Camembert") for fast in ("", "Fast"))

_CUT = "texts are cut and filled up to the tower's context length"
_NOTE = "a note on where the file is from, or how it is called"
_DECODING = "of the way from tokens back to text"
_ADDED = "stands in tokenizer.json, too"
_NORMALIZER = {"do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars"}
_ENDS = tuple(f"{name}_token" for name in ("unk", "cls", "sep", "pad", "mask", "bos", "eos"))

_SPECIAL_FIELDS = (*_ENDS, "additional_special_tokens", "extra_special_tokens")

_FIELDS = Fields(
    used=(
        *(*_NORMALIZER, *_ENDS, "tokenizer_class", "truncation_side", "padding_side", "add_prefix_space", "auto_map"),
        *("add_bos_token", "add_eos_token", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"),
    ),
    harmless={
        **dict.fromkeys(("model_max_length", "max_len", "max_length", "stride", "truncation_strategy"), _CUT),
        **dict.fromkeys(("pad_to_multiple_of", "pad_token_type_id", "padding", "truncation"), _CUT),
        **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file", "full_tokenizer_file"), _NOTE),
        **dict.fromkeys(("backend", "is_local", "local_files_only", "processor_class", "model_input_names"), _NOTE),
        **dict.fromkeys(("use_fast", "from_slow", "transformers_version", "vocab_size", "chat_template"), _NOTE),
        **dict.fromkeys(("use_default_system_prompt", "token_type_ids_pattern", "model_type"), _NOTE),
        **dict.fromkeys(("clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors"), _DECODING),
        **dict.fromkeys(("legacy", "sp_model_kwargs", "extra_ids"), _ADDED),
        "trim_offsets": "where tokens stand in the text, which nobody asks for",
    },
    only={
        "do_basic_tokenize": (True, None),
        "never_split": (None, []),
        "split_special_tokens": (False, None),
        "wordpieces_prefix": ("##",),
        "clean_text": (True,),
    },
)


def read_config(folder: Path) -> dict[str, Any]:
    """The file in a folder, empty if there is none; special tokens as their texts. UserError for a field that is refused.

    Without a list of added tokens in it, special_tokens_map.json and added_tokens.json count too, as in transformers.
    """
    path = folder / FILE
    given = _read(path)
    if "added_tokens_decoder" not in given:
        given |= {name: token for name, token in _read(folder / _SPECIAL).items() if name in _SPECIAL_FIELDS}
        if added := _read(folder / _ADDED_TOKENS):
            given["added_tokens_decoder"] = {str(number): {"content": token} for token, number in added.items()}
    _FIELDS.check(given, str(path))
    if given.get("auto_map") is not None and "CXRBert" not in str(given["auto_map"]):
        raise UserError(f"{path}: auto_map = {shown(given['auto_map'])}: a tokenizer with code of its own; expected none")
    # AddedToken is written as an object; null: the class's own
    texts = {
        name: token["content"] if isinstance(token, dict) and "content" in token else token for name, token in given.items()
    }
    return {name: value for name, value in texts.items() if value is not None}


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object, as transformers writes it")
    return found


def apply_config(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], where: str) -> str:
    """Make the tokenizer do what its config says, and return the side on which long texts are cut: "left" or "right".

    UserError for what it cannot be made to do.
    """
    from tokenizers import normalizers

    bert = isinstance(tokenizer.normalizer, normalizers.BertNormalizer)
    kind = config.get("tokenizer_class", BERTS[0] if bert else None)
    if kind in BERTS and not bert:
        raise UserError(
            f"{where}: tokenizer_class = {kind!r}, but tokenizer.json makes words in another way; expected its own class"
        )
    if kind in BERTS:
        _apply_to_bert(tokenizer, config, where)
    else:
        _apply_to_others(tokenizer, config, where)
    _check_ends(tokenizer, config, where)
    _check_added(tokenizer, config, where)
    cut, filled = tokenizer.truncation or {}, tokenizer.padding or {}
    sides = {"left": "left", "right": "right"}
    side = choice(config, "padding_side", filled.get("direction", "right"), sides, where)
    # a causal model looks at no padding, on whichever side
    read = str(kind).startswith(("Siglip", "Gemma", "T5")) or len(tokenizer.encode("").ids) > 1
    if side == "left" and read:
        raise UserError(f"{where}: padding_side = 'left' is not supported; supported: 'right', where this tower has it")
    return choice(config, "truncation_side", cut.get("direction", "right"), sides, where)  # type: ignore[no-any-return]


def _check_added(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], where: str) -> None:
    """UserError for tokens that the config adds, which are found inside of words too, and the tokenizer does not have."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    tokens = [*(extra.values() if isinstance(extra, dict) else extra), *(config.get("added_tokens_decoder") or {}).values()]
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    names = [str(token.get("content")) if isinstance(token, dict) else str(token) for token in tokens]
    if missing := [name for name in names if name not in there]:
        raise UserError(
            f"{where}: without {missing[0]!r}, which was added to the tokenizer; save tokenizer.json with transformers, and "
            "put it here"
        )


def _apply_to_bert(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], where: str) -> None:
    normalizer: Any = tokenizer.normalizer
    if config and "do_lower_case" not in config and not normalizer.lowercase:
        raise UserError(
            f"{where}: no do_lower_case; transformers would then lower all letters, which tokenizer.json does not; "
            'write "do_lower_case": false, or true, there'
        )
    for field, ours in _NORMALIZER.items():
        if field in config:
            setattr(normalizer, ours, flag(config, field, True, where))
    tokenizer.normalizer = normalizer


def _apply_to_others(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], where: str) -> None:
    from tokenizers import pre_tokenizers

    normalizer, words = tokenizer.normalizer, tokenizer.pre_tokenizer
    lowers = normalizer is not None and normalizer.normalize_str("A").endswith("a")
    siglip = str(config.get("tokenizer_class")).startswith("Siglip")  # `text.cleaner` makes letters small for these
    if flag(config, "do_lower_case", lowers or siglip, where) and not lowers and not siglip:
        raise UserError(f"{where}: do_lower_case = True, but this tokenizer keeps capital letters; expected false")
    if "add_prefix_space" not in config:
        return
    wanted = flag(config, "add_prefix_space", False, where)
    if isinstance(words, pre_tokenizers.ByteLevel):
        words.add_prefix_space = wanted
        tokenizer.pre_tokenizer = words
        return
    begun = normalizer.normalize_str("a") if normalizer is not None else "a"
    begun = words.pre_tokenize_str(begun)[0][0] if words is not None else begun
    if not wanted and begun.startswith("▁"):
        raise UserError(f"{where}: add_prefix_space = False, but tokenizer.json begins texts with a blank; expected true")


def _check_ends(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], where: str) -> None:
    """UserError if the tokens that stand at the ends of a text are not those that the config says."""
    ids = tokenizer.encode("").ids
    bert = config.get("tokenizer_class") in (*BERTS, *ROBERTAS)
    for field, end in (("cls_token", 0), ("sep_token", -1)) if bert else ():
        if field in config and (not ids or ids[end] != tokenizer.token_to_id(str(config[field]))):
            there = tokenizer.id_to_token(ids[end]) if ids else None
            raise UserError(
                f"{where}: {field} = {shown(config[field])}, but the tokenizer has {there!r} in its place; keep one"
            )
    kinds = ("GPT2", "Llama", "Gemma", "Siglip2", "PreTrained", "TokenizersBackend")
    explicit = str(config.get("tokenizer_class", "")).startswith(kinds)
    for field, token, end in (("add_bos_token", "bos_token", 0), ("add_eos_token", "eos_token", -1)) if explicit else ():
        if field not in config or token not in config:
            continue
        number = tokenizer.token_to_id(str(config[token]))
        other = "add_eos_token" if end == 0 else "add_bos_token"
        there = bool(ids) and ids[end] == number and not (len(ids) == 1 and config.get(other) is True)
        if flag(config, field, there, where) != there:
            raise UserError(
                f"{where}: {field} = {config[field]}, but tokenizer.json {'adds' if there else 'does not add'} that token to a "
                "text; make the two say the same"
            )
