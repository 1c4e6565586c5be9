//! Starting with wrong files.
