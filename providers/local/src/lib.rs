//! KEKs in a protected local file, for encx.
