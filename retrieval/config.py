"""Settings of every part, with their defaults; YAML files only fill them.

`load_config` reads a file and overrides; `parse_config` takes a mapping. Unknown keys are refused with the file,
the path of the key and the keys that are allowed there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from retrieval.datatypes import FirstStage, GroupBy, Quantization
from retrieval.errors import ConfigError
from retrieval.yaml_text import MAX_MESSAGE_CHARACTERS, MAX_YAML_CHARACTERS, load_yaml, shown

SettingsT = TypeVar("SettingsT", bound=BaseModel)
_MAX_PROBLEMS, _MAX_KEY = 50, 200
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


def _variable_name(value: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", value):
        return value
    raise PydanticCustomError(
        "unquoted", "not the name of an environment variable; put the secret into one and its name here"
    )


def _without_secrets(value: str) -> str:
    if "@" not in value.split("://", 1)[-1].split("/", 1)[0]:
        return value
    raise PydanticCustomError(
        "unquoted", "holds a name or a password; put the API key into an environment variable, see store.api_key_env"
    )


VariableName = Annotated[str, AfterValidator(_variable_name)]
"""Name of an environment variable. What is none is not quoted in the error: it may be the secret itself."""
DEFAULT_DENSE_WEIGHT = 0.4
"""Weight of the dense arm in the fusion where neither the configuration nor `adapt` has chosen one."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EncoderConfig(_Settings):
    """The static model: a bundled name, a folder, or a hub name ``owner/model``."""

    model: str = "starter-static"
    dimensions: Positive | None = Field(default=None, description="Matryoshka truncation; null keeps all")


class Bm25Config(_Settings):
    """The BM25 arm. ``language`` is a Snowball language, or ``multilingual`` for no stemming and wider splitting."""

    language: str = "english"
    k1: Annotated[float, Field(gt=0.0, le=10.0)] = 1.2
    b: Unit = 0.75


class ChunkingConfig(_Settings):
    """How documents are cut into passages, in tokens of the static model."""

    max_tokens: Annotated[int, Field(ge=16, le=8192)] = 512
    overlap_tokens: Annotated[int, Field(ge=0)] = 64

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> ChunkingConfig:
        if self.overlap_tokens * 2 > self.max_tokens:
            raise ValueError(f"overlap_tokens {self.overlap_tokens} is more than half of max_tokens {self.max_tokens}")
        return self


class DocumentsConfig(_Settings):
    """How files are read."""

    ignore: tuple[str, ...] = Field(
        default=(".*", "__pycache__", "node_modules", "*.lock"), description="gitignore-like name patterns"
    )
    text_column: str | None = Field(default=None, description="null looks for text, contents, content, body, passage")
    id_column: str | None = Field(default=None, description="null looks for _id, id, doc_id, docid")
    title_column: str | None = Field(default=None, description="null looks for title")
    metadata_columns: tuple[str, ...] | None = Field(default=None, description="null keeps all other scalar columns")
    encoding: str | None = Field(default=None, description="null detects it")
    max_file_bytes: Positive = Field(default=64 * 2**20, description="limit for files that are read whole")
    max_line_bytes: Positive = Field(
        default=16 * 2**20, description="limit for one record of JSON lines, CSV or Parquet"
    )
    max_convert_s: Annotated[float, Field(gt=0)] = Field(
        default=300.0,
        description="limit for converting one PDF or office file, or reading the next rows of a Parquet table",
    )
    max_convert_mb: Positive = Field(default=1024, description="limit for the memory that takes")
    duplicates: Literal["keep", "report", "skip"] = Field(
        default="keep", description="near-equal documents that come in: not looked for, reported, or left out"
    )
    second_process: Literal["auto"] | bool = Field(
        default="auto", description="read and encode in a process of its own; auto for large sources on two cores"
    )


class HnswConfig(_Settings):
    """The graph for approximate search; it is built by itself from the threshold on."""

    m: Annotated[int, Field(ge=0, le=256)] = 16
    ef_construct: Annotated[int, Field(ge=4)] = 100
    ef: Annotated[int, Field(ge=1)] = 256
    threshold: Annotated[int, Field(ge=0)] = Field(
        default=100_000, description="passages; below, every vector is compared"
    )


class QuantizationConfig(_Settings):
    """Compression of dense vectors; see `retrieval.datatypes.Quantization`.

    ``auto`` is for the embedded store: whole vectors up to ``auto_from`` passages, from there on turbo codes of two
    bits, rescored from four times the candidates. Other stores take it for none.
    """

    kind: Literal["auto", "none", "binary", "turbo", "scalar"] = "auto"
    bits: float = 2
    query_bits: Literal[4, 8] | None = None
    rescore: bool = True
    oversampling: Annotated[float, Field(ge=1.0, le=100.0)] = 3.0
    auto_from: Positive = Field(default=100_000, description="passages from which auto compresses")

    @model_validator(mode="after")
    def _bits_exist(self) -> QuantizationConfig:
        if self.bits not in {1, 1.5, 2, 4, 8}:
            raise ValueError(f"bits is 1, 1.5, 2, 4 or 8, not {self.bits}")
        if self.kind == "binary" and self.bits > 2:
            raise ValueError(f"binary quantization has 1, 1.5 or 2 bits, not {self.bits}")
        if self.query_bits is not None and self.kind != "binary":
            raise ValueError(f"query_bits is a setting of binary quantization, not of {self.kind}")
        return self

    def record(self) -> Quantization:
        """The same as the record that stores take; none where the store is left to choose."""
        if self.kind == "auto":
            return Quantization()
        return Quantization(self.kind, self.bits, self.query_bits, self.rescore, self.oversampling)


class EdgeStoreConfig(_Settings):
    """The embedded engine: Qdrant Edge in a folder."""

    kind: Literal["edge"] = "edge"
    path: str | None = Field(default=None, description="folder; null takes the one given to open() or --index")
    min_free_mb: Annotated[int, Field(ge=0)] = Field(default=512, description="writes are refused below this much disk")
    publish: bool = Field(
        default=True, description="keep what a second process can search while this one writes; costs disk"
    )


class MemoryStoreConfig(_Settings):
    """Exact search in numpy; gone when closed."""

    kind: Literal["memory"] = "memory"


class OptimizersConfig(_Settings):
    """What the optimizer of a server does in the background; null leaves a setting to the server."""

    indexing_threshold_kb: Positive | None = Field(
        default=None, description="vectors of a segment from which it gets a graph; null: from hnsw.threshold"
    )
    default_segment_number: Positive | None = None
    max_segment_size_kb: Positive | None = None
    deleted_threshold: Unit | None = Field(default=None, description="share of deleted points that starts a clean-up")
    vacuum_min_vectors: Positive | None = None
    flush_interval_s: Positive | None = None
    max_optimization_threads: Positive | None = None


class OnDiskConfig(_Settings):
    """What a server reads from disk instead of keeping it in memory; null leaves it to the server."""

    vectors: bool | None = None
    graph: bool | None = None
    sparse: bool | None = None
    payload: bool | None = None


class PayloadIndexConfig(_Settings):
    """An index that makes filters on a field fast."""

    field: Annotated[str, Field(min_length=1, description="path in the payload, such as metadata.year")]
    type: Literal["keyword", "integer", "float", "bool", "datetime", "uuid", "text", "geo"] = Field(
        description="what its values are"
    )


class ServerStoreConfig(_Settings):
    """A Qdrant server or cluster."""

    kind: Literal["server"] = "server"
    url: Annotated[str, AfterValidator(_without_secrets)] = "http://localhost:6333"
    collection: Annotated[str, Field(min_length=1)] = "passages"
    api_key_env: VariableName | None = Field(default=None, description="name of the environment variable with the key")
    tls_ca_env: VariableName | None = Field(
        default=None, description="environment variable with the path of a PEM file: CA"
    )
    tls_cert_env: VariableName | None = Field(default=None, description="the same: certificate of this client")
    tls_key_env: VariableName | None = Field(
        default=None, description="the same: its key; null: in the certificate's file"
    )
    prefer_grpc: bool = False
    grpc_port: Positive = 6334
    timeout_s: Positive = 30
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    batch_size: Positive = 256
    shard_number: Positive | None = None
    replication_factor: Positive | None = None
    write_consistency_factor: Positive | None = None
    on_disk: OnDiskConfig = OnDiskConfig()
    optimizers: OptimizersConfig = OptimizersConfig()
    payload_indexes: tuple[PayloadIndexConfig, ...] = ()
    tenant_field: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="field that tells tenants apart: metadata.tenant"
    )
    bulk: bool | Literal["auto"] = Field(
        default="auto", description="put off indexing while many points come; auto: when an empty collection is filled"
    )
    models: str | None = Field(
        default=None, description="folder of encoders adapted to the collection, which every machine needs"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ServerStoreConfig:
        copies, confirmed = self.replication_factor, self.write_consistency_factor
        if copies is not None and confirmed is not None and confirmed > copies:
            raise ValueError(f"write_consistency_factor {confirmed} is more than replication_factor {copies}")
        if self.tls_key_env is not None and self.tls_cert_env is None:
            raise ValueError("tls_key_env is the key of a certificate; name that in tls_cert_env")
        fields = [index.field for index in self.payload_indexes]
        if doubled := sorted({field for field in fields if fields.count(field) > 1 or field == self.tenant_field}):
            raise ValueError(f"the field {doubled[0]!r} has two indexes: in payload_indexes or tenant_field")
        return self


StoreConfig = Annotated[EdgeStoreConfig | MemoryStoreConfig | ServerStoreConfig, Field(discriminator="kind")]


class FirstStageConfig(_Settings):
    """Which arms fetch candidates and how their scores are fused."""

    arms: FirstStage = "hybrid"
    candidates: Annotated[int, Field(ge=1, le=10_000)] = 100
    fusion: Literal["minmax", "rrf"] = "minmax"
    dense_weight: Unit | None = Field(
        default=None,
        description="weight of the dense arm, BM25 has the rest; null: what adapt chose for the index, else 0.4",
    )
    rrf_k: Positive = 60
    exact: bool = Field(default=False, description="search all vectors as they were given: no graph, no compression")


class RerankConfig(_Settings):
    """The cross-encoder and how much of the candidates it reads."""

    enabled: bool = True
    model: str = "starter-reranker"
    depth: Annotated[int, Field(ge=0, le=10_000)] = 20
    budget_ms: Annotated[float, Field(gt=0.0)] | None = Field(default=None, description="null: no limit")
    first_stage_weight: Unit = Field(default=0.4, description="share of the first stage in the final score")
    batch_size: Positive = 8
    max_tokens: Annotated[int, Field(ge=16)] | None = Field(
        default=None, description="query and passage; null: the model's"
    )
    window_words: Annotated[int, Field(ge=16)] | None = Field(
        default=90, description="words of a long passage that are read, those closest to the query; null: its beginning"
    )
    threads: Positive | None = Field(default=None, description="null: all cores")
    early_stop: Literal["never", "exact"] | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.15,
        description="stop when hits cannot change (exact), or the first 5 will not but for such a chance; or never",
    )
    cache_mb: Annotated[float, Field(ge=0.0)] = Field(
        default=16.0, description="memory for scores of pairs that were read before; 0: read everything anew"
    )


class SearchConfig(_Settings):
    """What a search returns when the call does not say."""

    top_k: Positive = 5
    group_by: GroupBy = "document"
    min_score: Unit | Literal["auto"] | None = Field(
        default=None,
        description="hits with a lower probability are left out; auto: the threshold that calibrate stored; null: none",
    )


class Config(_Settings):
    """Everything a pipeline is made from."""

    encoder: EncoderConfig = EncoderConfig()
    bm25: Bm25Config = Bm25Config()
    chunking: ChunkingConfig = ChunkingConfig()
    documents: DocumentsConfig = DocumentsConfig()
    store: StoreConfig = EdgeStoreConfig()
    hnsw: HnswConfig = HnswConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    first_stage: FirstStageConfig = FirstStageConfig()
    rerank: RerankConfig = RerankConfig()
    search: SearchConfig = SearchConfig()

    @field_validator("store", mode="before")
    @classmethod
    def _embedded_unless_said(cls, value: Any) -> Any:
        return {"kind": "edge", **value} if isinstance(value, dict) else value


SERVICE_SECTION = "service"
"""Section of the same file that describes the HTTP service around a pipeline, for which `Config` has no key."""


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file and apply overrides; the section of the service is left to those who load that.

    Args:
        path: YAML file; ``None`` starts from the defaults.
        overrides: ``section.key=value`` each, the value in YAML: ``rerank.depth=5``.

    Raises:
        ConfigError: The file is missing, not YAML, not a mapping, or holds an unknown key or unusable value.
    """
    data = _read(path, overrides)
    data.pop(SERVICE_SECTION, None)
    return _validated(Config, data, _origin(path))


def load_settings(
    model: type[SettingsT],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    *,
    section: str | None = None,
) -> SettingsT:
    """As `load_config`, for the settings of another purpose.

    Args:
        model: Frozen pydantic model that forbids unknown keys.
        path: YAML file; ``None`` starts from the defaults.
        overrides: ``section.key=value`` each.
        section: The only section that is looked at; ``None`` for the whole file.

    Raises:
        ConfigError: As `load_config`.
    """
    data = _read(path, overrides)
    if section is None:
        return _validated(model, data, _origin(path))
    part = data.get(section)
    if part is not None and not isinstance(part, dict):
        raise ConfigError(f"{_origin(path)}: {section} is a section with keys, not {part!r}")
    return _validated(model, part or {}, f"{_origin(path)}, section {section}")


def _origin(path: str | Path | None) -> str:
    return str(path) if path is not None else "configuration"


def _read(path: str | Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if path is not None:
        try:
            with Path(path).open(encoding="utf-8") as file:
                loaded = load_yaml(file.read(MAX_YAML_CHARACTERS + 1))
        except OSError as error:
            raise ConfigError(f"cannot read configuration {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if loaded is not None and not isinstance(loaded, dict):
            raise ConfigError(f"{path} holds a {type(loaded).__name__}, not a mapping of sections")
        data = loaded or {}
    for override in overrides:
        _apply_override(data, override)
    return data


def parse_config(data: Mapping[str, Any], origin: str = "configuration") -> Config:
    """Validate a mapping of sections.

    Args:
        data: Sections and their keys.
        origin: Name of the source for messages.

    Raises:
        ConfigError: A key is unknown or a value cannot be used; every problem is named.
    """
    return _validated(Config, data, origin)


def _validated(model: type[SettingsT], data: Mapping[str, Any], origin: str) -> SettingsT:
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        problems = error.errors()
        lines = [_explain(model, problem, origin) for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            lines.append(f"{origin}: and {len(problems) - _MAX_PROBLEMS:,} more")
        raise ConfigError("\n".join(lines)) from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"override {override!r} is not of the form section.key=value")
    for depth, key in enumerate(keys[:-1]):
        child = data.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {'.'.join(keys[: depth + 1])} is a value, not a section")
        data = child
    try:
        data[keys[-1]] = load_yaml(value)
    except ValueError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from error


def _explain(model: type[BaseModel], problem: Any, origin: str) -> str:
    # The tag of a discriminated union shows up in the location; it is not a key of the file.
    location = [
        str(part)[:_MAX_KEY]
        for place, part in enumerate(problem["loc"])
        if not (place and problem["loc"][place - 1] == "store" and part in {"edge", "memory", "server"})
    ]
    path = ".".join(location) or "(top level)"
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")[:MAX_MESSAGE_CHARACTERS]
        quoted = "" if problem["type"] == "unquoted" else f" (got {shown(problem['input'])})"
        return f"{origin}: {path}: {message}{quoted}"
    allowed = ", ".join(sorted(_model_at(model, problem["loc"][:-1]).model_fields))
    return f"{origin}: unknown key {path}; allowed here: {allowed}"


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, int):  # an item of a list, whose model the name of the list has given
            continue
        if part in {"edge", "memory", "server"} and part not in model.model_fields:
            choices = get_args(get_args(StoreConfig)[0])
            model = next(choice for choice in choices if choice.model_fields["kind"].default == part)
            continue
        annotation = model.model_fields[part].annotation
        for found in (annotation, *get_args(annotation)):
            if isinstance(found, type) and issubclass(found, BaseModel):
                model = found
    return model
