//! The rooms of the house, as data; the table in `ARCHITECTURE.md` says why.

/// A crate, where it lives, and what it may and may not depend on.
pub struct Room {
    pub package: &'static str,
    pub folder: &'static str,
    /// The crates of this repository that it may name.
    pub may_name: &'static [&'static str],
    /// What must not be in what it links, however indirectly. A name with `*` at its end is a prefix.
    pub never_links: &'static [&'static str],
}

/// What a daemon on a node never links: a compiler (some data structures of Cranelift's belong to the runtime), and
/// what is the aggregator's.
const COMPILER: &[&str] = &[
    "cranelift-codegen*",
    "cranelift-frontend",
    "cranelift-native",
    "regalloc2",
    "wasmtime-internal-cranelift",
    "wasmtime-internal-winch",
    "rusqlite",
    "libsqlite3-sys",
    "picket-aggregator",
    // A node never talks to a registry.
    "picket-registry",
];
const ENGINE: &[&str] = &["wasmtime*", "cranelift*", "picket-agent*"];

pub const ROOMS: &[Room] = &[
    Room { package: "xtask", folder: "xtask", may_name: &[], never_links: &["wasmtime*", "tokio", "ring"] },
    Room {
        package: "e2e",
        folder: "tests",
        may_name: &["picket-proto"],
        never_links: &["picket-agent*", "picket-aggregator", "wasmtime*"],
    },
    Room {
        package: "benches",
        folder: "tests/benches",
        may_name: &[
            "e2e",
            "picket-agent-host",
            "picket-agent-services",
            "picket-agent-spool",
            "picket-aggregator",
            "picket-proto",
        ],
        never_links: &[],
    },
    Room {
        package: "inputs",
        folder: "tests/inputs",
        may_name: &[
            "fake-nvml",
            "picket-agent",
            "picket-agent-host",
            "picket-agent-nvml",
            "picket-agent-services",
            "picket-agent-spool",
            "picket-aggregator",
            "picket-artifact",
            "picket-proto",
        ],
        never_links: &[],
    },
    Room {
        package: "picket",
        folder: "cli",
        may_name: &[
            "picket-artifact",
            "picket-proto",
            "picket-registry",
            "picket-agent-host",
            "picket-agent-services",
        ],
        never_links: &["picket-aggregator", "cranelift-codegen*"],
    },
    Room {
        package: "picket-agent",
        folder: "agent",
        may_name: &[
            "picket-agent-host",
            "picket-agent-services",
            "picket-agent-spool",
            "picket-artifact",
            "picket-proto",
        ],
        never_links: COMPILER,
    },
    Room {
        package: "picket-agent-host",
        folder: "agent/host",
        may_name: &["picket-agent-services", "picket-artifact", "picket-proto"],
        never_links: COMPILER,
    },
    Room {
        package: "fake-nvml",
        folder: "tests/fake-nvml",
        may_name: &["picket-agent-nvml", "picket-agent-services", "picket-proto"],
        never_links: &["wasmtime*", "picket-aggregator"],
    },
    Room {
        package: "picket-agent-nvml",
        folder: "agent/nvml",
        may_name: &[],
        never_links: &["tokio", "wasmtime*", "picket-proto"],
    },
    Room {
        package: "picket-agent-services",
        folder: "agent/services",
        may_name: &["picket-agent-nvml", "picket-proto"],
        never_links: &["wasmtime*", "wasmparser", "picket-aggregator"],
    },
    Room {
        package: "picket-agent-spool",
        folder: "agent/spool",
        may_name: &[],
        never_links: &["wasmtime*", "prost", "tonic", "picket-proto"],
    },
    Room {
        package: "picket-aggregator",
        folder: "aggregator",
        may_name: &["picket-artifact", "picket-proto", "picket-registry"],
        never_links: ENGINE,
    },
    Room {
        package: "picket-artifact",
        folder: "proto/artifact",
        may_name: &["picket-proto"],
        never_links: &["wasmtime*", "wasmparser", "rusqlite", "picket-agent*", "picket-aggregator"],
    },
    Room {
        package: "picket-registry",
        folder: "proto/registry",
        may_name: &["picket-artifact"],
        never_links: &["wasmtime*", "wasmparser", "rusqlite", "picket-agent*", "picket-aggregator"],
    },
    Room { package: "picket-proto", folder: "proto", may_name: &[], never_links: &["wasmtime*", "rusqlite"] },
];

/// One TLS provider (ring), and nothing that needs a system library of its own.
pub const NOBODY_LINKS: &[&str] = &["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys"];

/// The one crate that names the WASM engine.
pub const ENGINE_CRATE: &str = "picket-agent-host";

/// Those that may write `unsafe` where they say so: to map compiled plugins, to call the driver's C library, and to be
/// one.
pub const UNSAFE_CRATES: &[&str] = &[ENGINE_CRATE, "picket-agent-nvml", "fake-nvml"];
