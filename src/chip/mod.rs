//! What a target can hold.
