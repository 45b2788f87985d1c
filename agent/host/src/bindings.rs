//! The contract's types, generated from `wit/`.

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "picket:source/controllable-source-plugin",
    imports: {
        "picket:host/command": async | trappable,
        "picket:host/containers": async | trappable,
        "picket:host/files": async | trappable,
        "picket:host/http": async | trappable,
        "picket:host/kmsg": async | trappable,
        "picket:host/logs": async | trappable,
        "picket:host/nvml": async | trappable,
        "picket:host/store": async | trappable,
        "picket:host/system": async | trappable,
        "picket:host/unix-http": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
