//! What we show to others, and what we accept from them.

pub mod make;
