//! Every code that an operator or an author can meet, in one table. A code is never used again for something else.

use super::Fault;

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    /// What it means, in a few words.
    pub title: &'static str,
    pub fault: Fault,
    pub advice: &'static str,
}

macro_rules! codes {
    ($($name:ident = $code:literal, $fault:ident, $title:literal, $advice:literal;)*) => {
        $(pub(crate) static $name: Code =
            Code { code: $code, title: $title, fault: Fault::$fault, advice: $advice };)*

        /// All codes, in order.
        pub static CODES: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    UNREADABLE = "PKT-0001", Host, "the file cannot be read", "Check that it exists and that the agent's user may read it";
    TOO_LARGE = "PKT-0002", Limit, "the file is larger than a plugin may be", "Strip the component's debug information";
    EMPTY = "PKT-0003", Plugin, "the file is empty", "Copy the component again: the last copy broke off before it began";
    TRUNCATED = "PKT-0004", Plugin, "the file breaks off or is damaged", "Copy the component again and compare its checksum";
    CORE_MODULE = "PKT-0005", Plugin, "the file is a core WebAssembly module", "Make it a component: build it with `picket plugin build` or `wasm-tools component new`";
    NATIVE = "PKT-0006", Plugin, "the file is a native program", "Build the plugin for wasm32-unknown-unknown and make it a component";
    PRECOMPILED = "PKT-0007", Plugin, "the file is compiled already", "Give the agent the .wasm component: it compiles plugins itself and trusts no compiled file";
    NOT_WASM = "PKT-0008", Plugin, "the file is no WebAssembly", "Give the agent a .wasm component";
    MANIFEST = "PKT-0020", Plugin, "the manifest is not valid", "Mend plugin.toml and build the component again";
    OTHER_WORLD = "PKT-0021", Plugin, "the component is of another world", "A source exports picket:source/source, an action picket:action/action: check the world that it was built for";
    UNKNOWN_IMPORT = "PKT-0022", Plugin, "the component imports what Picket does not have", "Build it against the WIT of this agent's version, and use picket:host in place of WASI";
    VERSION = "PKT-0023", Plugin, "the component is made for another version of the contract", "Build it again for the version that this agent serves, or run it on an agent that serves its version";
    NOT_GRANTED = "PKT-0030", Grant, "the plugin needs what it is not granted", "Add the lines above if you agree, or leave the plugin out";
    NOT_NAMED = "PKT-0031", Plugin, "the component imports what its manifest does not name", "Add the [[needs]] to plugin.toml";
    BAD_GRANT = "PKT-0032", Grant, "a grant is not valid", "Mend the grant in the agent's config";
    BAD_NEED = "PKT-0033", Plugin, "a need in the manifest is not valid", "Mend plugin.toml and build the component again";
    NO_COMPILER = "PKT-0040", Host, "the compiler cannot be run", "picket-compile must lie beside the agent, or where `compiler` in its config says";
    COMPILE = "PKT-0041", Plugin, "the component cannot be compiled", "The component is not valid, or uses a WebAssembly proposal that Picket switches off";
    COMPILE_LIMIT = "PKT-0042", Limit, "compiling took too long or too much memory", "Make the component smaller, or raise compile.memory and compile.timeout in the agent's config";
    CACHE = "PKT-0043", Host, "the cache of compiled plugins cannot be used", "Check cache_dir: the agent's user must own it, mode 0700, with room on the disk";
    LINK = "PKT-0050", Plugin, "the component does not fit the host's interfaces", "Build it against the WIT of this agent's version";
    TRAP = "PKT-0060", Plugin, "the plugin trapped", "Report it to the plugin's author";
    GUEST_TIME = "PKT-0061", Limit, "the plugin used too much CPU time in one call", "Raise limits.guest_time if that is to be expected, or report it to the author";
    CALL_TIME = "PKT-0062", Limit, "a call into the plugin took too long", "Something it waits for does not answer; raise limits.call_time if that is to be expected";
    MEMORY = "PKT-0063", Limit, "the plugin wanted more memory than it may have", "Raise limits.memory if that is to be expected, or report it to the author";
    STACK = "PKT-0064", Plugin, "the plugin's stack overflowed", "It recurses too deeply: report it to the author";
    HOSTCALL = "PKT-0065", Limit, "the plugin passed more data in one host call than it may", "Raise limits.hostcall_bytes if that is to be expected, or report it to the author";
    RESOURCES = "PKT-0066", Limit, "the plugin wanted more tables, memories or instances than it may have", "Report it to the plugin's author";
    DESCRIPTION = "PKT-0067", Plugin, "what the plugin describes is not valid", "Report it to the plugin's author";
    SETTINGS = "PKT-0068", Plugin, "the plugin refused its settings", "Mend [plugins.NAME.settings]";
    SOURCE = "PKT-0069", Plugin, "the plugin could not read its source", "What it pushed before is kept; it is tried again at the next interval";
    ANSWER = "PKT-0070", Plugin, "what the action plugin answered is not valid", "Report it to the plugin's author";
    WORKER = "PKT-0071", Limit, "the process that ran the plugin ended", "The plugin is started anew, away from the others; if it happens again report it to the author: a plugin may not be able to do that";
    BACKING_OFF = "PKT-0080", Plugin, "the plugin failed and waits to be started again", "";
    QUARANTINED = "PKT-0081", Plugin, "the plugin failed too often and is quarantined", "Replace it or change its settings or limits; then it is tried anew";
    NO_WORKER = "PKT-0082", Host, "there is no process to run the plugin in", "picket-worker must lie beside the agent, or where `worker.program` in its config says, and be of the agent's version";
    HOST = "PKT-0090", Host, "the host failed", "This is a fault of the agent's: please report it";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        assert!(CODES.windows(2).all(|w| w[0].code < w[1].code));
        assert!(CODES.iter().all(|c| c.code.len() == 8 && c.code.starts_with("PKT-")));
    }
}
