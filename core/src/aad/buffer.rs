//! The bytes of an AAD, with room before them for what the cipher puts there.

/// The length of what GCM authenticates before the AAD: a ciphertext's header and its scope.
#[doc(hidden)]
pub const PREFIX_LEN: usize = 50;

/// How many framed bytes need no allocation: a table, a column and a UUID with names of ordinary length.
pub(super) const SHORT: usize = 110;

/// Room for the prefix, and the framed bytes: all that GCM authenticates, in one piece.
///
/// Not a `SmallVec`, with which framing a row takes three times as many instructions.
#[derive(Clone)]
pub(super) struct Buffer {
    parts: u16,
    len: usize,
    short: [u8; PREFIX_LEN + SHORT],
    /// Used instead of `short` if that is too short.
    long: Vec<u8>,
}

impl Buffer {
    /// Takes framed bytes of this length: a kind, the count of parts, and the parts.
    #[inline]
    pub(super) fn new(framed: &[u8; SHORT], len: usize) -> Self {
        let mut short = [0; PREFIX_LEN + SHORT];
        short[PREFIX_LEN..].copy_from_slice(framed);
        Self {
            parts: u16::from_be_bytes([framed[1], framed[2]]),
            len: PREFIX_LEN + len,
            short,
            long: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn parts(&self) -> usize {
        self.parts.into()
    }

    /// Returns the framed bytes.
    #[inline]
    pub(super) fn framed(&self) -> &[u8] {
        &self.short.get(..self.len).unwrap_or(&self.long)[PREFIX_LEN..]
    }

    /// Returns the prefix and the framed bytes.
    #[inline]
    pub(super) fn whole(&mut self) -> &mut [u8] {
        self.short.get_mut(..self.len).unwrap_or(&mut self.long)
    }

    /// Returns how long the framed bytes are with one more part.
    #[inline]
    pub(super) fn len_with(&self, part: usize) -> usize {
        self.len - PREFIX_LEN + 5 + part
    }

    /// Appends a part: its type, its length and its bytes. The caller has checked the bounds.
    #[inline]
    pub(super) fn push(&mut self, kind: u8, bytes: &[u8]) {
        self.count_one_more();
        // No part is longer than an AAD.
        let [a, b, c, d] = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.extend(&[kind, a, b, c, d]);
        self.extend(bytes);
    }

    /// As [`push`](Self::push), in one piece.
    #[inline]
    pub(super) fn push_short(&mut self, kind: u8, bytes: [u8; 16]) {
        self.count_one_more();
        let mut part = [0; 5 + 16];
        (part[0], part[4]) = (kind, 16);
        part[5..].copy_from_slice(&bytes);
        self.extend(&part);
    }

    #[inline]
    fn count_one_more(&mut self) {
        self.parts += 1;
        let parts = self.parts.to_be_bytes();
        self.whole()[PREFIX_LEN + 1..PREFIX_LEN + 3].copy_from_slice(&parts);
    }

    #[inline(always)]
    fn extend(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        match self.short.get_mut(self.len..end) {
            Some(room) => room.copy_from_slice(bytes),
            None => self.spill(bytes),
        }
        self.len = end;
    }

    #[cold]
    fn spill(&mut self, bytes: &[u8]) {
        if self.long.is_empty() {
            self.long.extend_from_slice(&self.short[..self.len]);
        }
        self.long.extend_from_slice(bytes);
    }

    /// Tells whether the bytes are in memory of their own.
    #[cfg(test)]
    pub(super) fn is_long(&self) -> bool {
        !self.long.is_empty()
    }
}
