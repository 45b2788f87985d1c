//! What every plugin has without a grant: log, clock, random.
