//! The contract's types, generated from `wit/`: one set for all worlds, so that an interface is implemented once.

wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package picket:agent;

        world every-plugin {
            include picket:source/controllable-source-plugin@0.2.0;
            include picket:action/action-plugin@0.1.0;
        }
    ",
    world: "picket:agent/every-plugin",
    imports: {
        "picket:host/command": async | trappable,
        "picket:host/containers": async | trappable,
        "picket:host/containers-control": async | trappable,
        "picket:host/files": async | trappable,
        "picket:host/files-write": async | trappable,
        "picket:host/http": async | trappable,
        "picket:host/kmsg": async | trappable,
        "picket:host/log": async | trappable,
        "picket:host/logs": async | trappable,
        "picket:host/nvml": async | trappable,
        "picket:host/store": async | trappable,
        "picket:host/system": async | trappable,
        "picket:host/systemd-control": async | trappable,
        "picket:host/unix-http": async | trappable,
        "picket:source/sink": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
