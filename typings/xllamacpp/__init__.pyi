"""The part of xllamacpp that the node uses; the package has no types of its own."""

class CommonParamsModel:
    path: str

class CpuParams:
    n_threads: int

class CommonParams:
    model: CommonParamsModel
    hostnames: list[str]
    api_keys: list[str]
    ui: bool
    cors_origins: str
    n_parallel: int
    n_ctx: int
    n_batch: int
    n_ubatch: int
    cpuparams: CpuParams
    cpuparams_batch: CpuParams
    verbosity: int
    cache_ram_mib: int
    cache_idle_slots: bool
    embedding: bool

class Server:
    listening_address: str
    def __init__(self, common_params: CommonParams) -> None: ...
