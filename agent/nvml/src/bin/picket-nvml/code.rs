//! What a function of the library returned.

/// An error of the library, by its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

macro_rules! codes {
    ($($name:ident = $number:literal, $word:literal;)*) => {
        impl Code {
            $(pub const $name: Self = Self($number);)*

            /// As it stands in a document.
            pub fn word(self) -> String {
                match self {
                    $(Self::$name => $word.to_owned(),)*
                    Self(number) => format!("error-{number}"),
                }
            }
        }
    };
}

codes! {
    UNINITIALIZED = 1, "uninitialized";
    INVALID_ARGUMENT = 2, "invalid-argument";
    NOT_SUPPORTED = 3, "not-supported";
    NO_PERMISSION = 4, "no-permission";
    ALREADY_INITIALIZED = 5, "already-initialized";
    NOT_FOUND = 6, "not-found";
    INSUFFICIENT_SIZE = 7, "insufficient-size";
    INSUFFICIENT_POWER = 8, "insufficient-power";
    DRIVER_NOT_LOADED = 9, "driver-not-loaded";
    TIMEOUT = 10, "timeout";
    IRQ_ISSUE = 11, "irq-issue";
    LIBRARY_NOT_FOUND = 12, "library-not-found";
    // An older library than the function: the same to a reader as a device that has no such thing.
    FUNCTION_NOT_FOUND = 13, "not-supported";
    CORRUPTED_INFOROM = 14, "corrupted-inforom";
    GPU_IS_LOST = 15, "gpu-lost";
    RESET_REQUIRED = 16, "reset-required";
    OPERATING_SYSTEM = 17, "operating-system";
    LIB_RM_VERSION_MISMATCH = 18, "version-mismatch";
    IN_USE = 19, "in-use";
    MEMORY = 20, "out-of-memory";
    NO_DATA = 21, "no-data";
    VGPU_ECC_NOT_SUPPORTED = 22, "not-supported";
    INSUFFICIENT_RESOURCES = 23, "insufficient-resources";
    FREQ_NOT_SUPPORTED = 24, "not-supported";
    ARGUMENT_VERSION_MISMATCH = 25, "argument-version-mismatch";
    DEPRECATED = 26, "deprecated";
    NOT_READY = 27, "not-ready";
    GPU_NOT_FOUND = 28, "gpu-not-found";
    INVALID_STATE = 29, "invalid-state";
    RESET_TYPE_NOT_SUPPORTED = 30, "not-supported";
    UNKNOWN = 999, "unknown";
    // Ours: the call succeeded and gave what no driver should.
    UNEXPECTED = 1_000_000, "unexpected-value";
}

impl Code {
    pub fn check(returned: u32) -> Result<(), Self> {
        if returned == 0 { Ok(()) } else { Err(Self(returned)) }
    }

    /// The device answers nothing any more.
    pub fn is_loss(self) -> bool {
        matches!(self, Self::GPU_IS_LOST | Self::RESET_REQUIRED)
    }

    /// The device has no such thing: not an error that passes.
    pub fn is_lack(self) -> bool {
        self.word() == "not-supported"
    }
}
