//! The configuration of a blind index: its column, its normaliser and its bits.

use encx_core::aad::{TYPE_INTEGER, TYPE_TEXT};

use super::value::{IndexValue, Normalized, Parts, frame};
use super::{IndexError, Message, Normalizer};

/// Names the blind index of a column, so that its encrypted values can be found by equality.
///
/// ```
/// use encx::search::{IndexField, IndexPart, Normalizer};
///
/// const EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);
/// const NAME_BORN: IndexField = IndexField::compound(
///     "patients",
///     &[IndexPart::new("last_name").normalize(Normalizer::CaseFold), IndexPart::new("born")],
///     32,
/// );
/// ```
///
/// [`Crypto::blind_index`](crate::Crypto::blind_index) computes the term that a column of bytes stores beside the
/// ciphertext, [`Crypto::index_terms`](crate::Crypto::index_terms) the terms of a query. The table, the column, the
/// index's name, its normalisers and its bits are part of the index's key. Changing any of them makes another index,
/// and its column must be computed again.
///
/// **Matches are candidates.** Two values share a term if they are equal after normalisation, or by chance, which becomes
/// likelier with fewer bits. Decrypt each found row and compare with [`is_same`](Self::is_same) before you rely on it.
///
/// <div class="warning">
///
/// A reader of the database sees which rows have the same term, and so, with many bits, the same value; how often each
/// term occurs; and, from a query, which rows it searched for. If frequent values or a row's value are known, this
/// reveals the values of other rows. An attacker who can have chosen values stored or searched for can test guesses one
/// by one, but cannot compute a term without the index key. Index only what must be searched, with as few bits as
/// searching allows: [`bits_for`](Self::bits_for).
///
/// </div>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexField {
    table: &'static str,
    name: &'static str,
    first: IndexPart,
    more: &'static [IndexPart],
    bits: u16,
    unique: bool,
    small_domain: bool,
}

/// One column of a compound index; see [`IndexField::compound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPart {
    column: &'static str,
    normalizer: Normalizer,
}

impl IndexPart {
    /// Names a column whose values are indexed unchanged.
    ///
    /// # Panics
    ///
    /// If the name is empty. In a `const` it does not compile.
    #[must_use]
    pub const fn new(column: &'static str) -> Self {
        assert!(!column.is_empty(), "the column's name is empty");
        Self {
            column,
            normalizer: Normalizer::Exact,
        }
    }

    /// Sets how its values are normalised. Default: [`Normalizer::Exact`].
    #[must_use]
    pub const fn normalize(mut self, normalizer: Normalizer) -> Self {
        self.normalizer = normalizer;
        self
    }

    /// Returns the column's name.
    #[must_use]
    pub const fn column(&self) -> &'static str {
        self.column
    }

    /// Returns how its values are normalised.
    #[must_use]
    pub const fn normalizer(&self) -> Normalizer {
        self.normalizer
    }
}

impl IndexField {
    /// The fewest bits of an index.
    pub const MIN_BITS: u16 = 8;
    /// The most bits of an index.
    pub const MAX_BITS: u16 = 256;
    /// The fewest bits of an index that represents its value in a UNIQUE constraint: among 2⁵⁰ values two share a term
    /// with a probability of 2⁻²⁹.
    pub const MIN_UNIQUE_BITS: u16 = 128;
    /// The fewest distinct values among which the smallest index hides any: two for each of its 2⁸ terms.
    pub const MIN_DISTINCT: u64 = encx_core::blind_index::MIN_DISTINCT;
    /// The most columns of a compound index.
    pub const MAX_PARTS: usize = 8;

    /// Names the index of a column, of 8 to 256 bits. Choose them with [`bits_for`](Self::bits_for).
    ///
    /// In a `const`, a fault does not compile.
    ///
    /// # Panics
    ///
    /// If a name is empty, or the bits are not 8 to 256.
    #[must_use]
    pub const fn new(table: &'static str, column: &'static str, bits: u16) -> Self {
        Self::of(table, IndexPart::new(column), &[], bits)
    }

    /// Names an index of two to eight columns together, which finds rows that are equal in all of them.
    ///
    /// It takes values with as many parts: `("Lovelace", "1815-12-10")`. Each part is framed with its type and length,
    /// so no two different values are confused.
    ///
    /// # Panics
    ///
    /// If there are fewer than two parts or more than eight, a name is empty, or the bits are not 8 to 256. In a
    /// `const` it does not compile.
    #[must_use]
    pub const fn compound(table: &'static str, parts: &'static [IndexPart], bits: u16) -> Self {
        assert!(
            parts.len() >= 2 && parts.len() <= Self::MAX_PARTS,
            "a compound index has 2 to 8 columns"
        );
        match parts {
            [first, more @ ..] => Self::of(table, *first, more, bits),
            [] => panic!("a compound index has 2 to 8 columns"),
        }
    }

    const fn of(table: &'static str, first: IndexPart, more: &'static [IndexPart], bits: u16) -> Self {
        assert!(!table.is_empty(), "the table's name is empty");
        assert!(
            bits >= Self::MIN_BITS && bits <= Self::MAX_BITS,
            "an index has 8 to 256 bits"
        );
        Self {
            table,
            name: "",
            first,
            more,
            bits,
            unique: false,
            small_domain: false,
        }
    }

    /// Names the index, to distinguish a second one of the same column. Default: no name.
    ///
    /// # Panics
    ///
    /// If the name is empty. In a `const` it does not compile.
    #[must_use]
    pub const fn named(mut self, name: &'static str) -> Self {
        assert!(!name.is_empty(), "the index's name is empty");
        self.name = name;
        self
    }

    /// Sets how values are normalised before they are indexed. Default: [`Normalizer::Exact`].
    ///
    /// # Panics
    ///
    /// For a compound index, whose parts have their own normalisers. In a `const` it does not compile.
    #[must_use]
    pub const fn normalize(mut self, normalizer: Normalizer) -> Self {
        assert!(
            self.more.is_empty(),
            "normalise the parts of a compound index, not the index"
        );
        self.first = self.first.normalize(normalizer);
        self
    }

    /// Declares that the column has a UNIQUE constraint. The index then needs at least 128 bits, so that no two values
    /// share a term by chance.
    ///
    /// <div class="warning">
    ///
    /// Equality is then fully visible, because every value has its own term. And the constraint holds only within one
    /// version of the index key: after a rotation the same value has another term. Before you rotate, see
    /// [`Crypto::blind_index_under`](crate::Crypto::blind_index_under).
    ///
    /// </div>
    ///
    /// <div class="warning">
    ///
    /// Never write `INSERT .. ON CONFLICT (name_index) DO UPDATE SET name = excluded.name`. The existing row keeps its
    /// id, but the new ciphertext is bound to the id of the rejected row, so the row can no longer be read. Find the id
    /// first with [`Crypto::index_terms`](crate::Crypto::index_terms), or insert with `DO NOTHING`, and encrypt for the
    /// existing id; docs/search.md shows it.
    ///
    /// </div>
    ///
    /// # Panics
    ///
    /// If the index has fewer than 128 bits. In a `const` it does not compile.
    #[must_use]
    pub const fn unique(mut self) -> Self {
        assert!(
            self.bits >= Self::MIN_UNIQUE_BITS,
            "an index of a UNIQUE column has at least 128 bits"
        );
        self.unique = true;
        self
    }

    /// Allows an index of few distinct values, and accepts that it reveals which rows have which value.
    ///
    /// <div class="warning">
    ///
    /// A reader of the database can tell few values apart by their frequencies. Searching such a column is as safe if
    /// it is not encrypted at all.
    ///
    /// </div>
    #[must_use]
    pub const fn insecure_small_domain(mut self) -> Self {
        self.small_domain = true;
        self
    }

    /// Requires that the index hides something among `distinct` values; see [`check_domain`](Self::check_domain).
    ///
    /// ```
    /// # use encx::search::IndexField;
    /// const CITY: IndexField = IndexField::new("users", "city", 10).expecting(10_000);
    /// ```
    ///
    /// ```compile_fail
    /// # use encx::search::IndexField;
    /// const IS_ADMIN: IndexField = IndexField::new("users", "is_admin", 8).expecting(2);
    /// ```
    ///
    /// # Panics
    ///
    /// If it does not. In a `const` it does not compile.
    #[must_use]
    pub const fn expecting(self, distinct: u64) -> Self {
        match self.check_domain(distinct) {
            Ok(()) => self,
            Err(IndexError::DomainTooSmall { .. }) => {
                panic!(
                    "an index cannot hide so few values: index another column, or call `insecure_small_domain()`"
                )
            }
            Err(_) => {
                panic!("with so many bits every value has its own term: use as many as `bits_for` returns")
            }
        }
    }

    /// Checks that the index hides something among `distinct` values under one index key. If each tenant has its own
    /// context, these are one tenant's values.
    ///
    /// It refuses fewer than 512 values, unless the index was made with
    /// [`insecure_small_domain`](Self::insecure_small_domain). It refuses more bits than leave two values to a term on
    /// average, unless the index is [`unique`](Self::unique), whose values are meant to be told apart. Only you know
    /// how often values occur: count the values that are about equally frequent.
    ///
    /// # Errors
    ///
    /// [`IndexError::DomainTooSmall`], [`IndexError::TooManyBits`].
    pub const fn check_domain(&self, distinct: u64) -> Result<(), IndexError> {
        if self.small_domain {
            return Ok(());
        }
        let most = match Self::bits_for(distinct) {
            Ok(most) => most,
            Err(error) => return Err(error),
        };
        if self.bits > most && !self.unique {
            return Err(IndexError::TooManyBits {
                bits: self.bits,
                distinct,
                most,
            });
        }
        Ok(())
    }

    /// Returns the most bits with which at least two of the expected values share a term, on average.
    ///
    /// With R values and L bits, each term stands for R · 2⁻ᴸ values. A query finds the rows of all of them. Its result
    /// must be filtered for the searched value, and an attacker cannot tell the values apart, which hides them. Fewer
    /// bits hide more and cause more false matches; below √R values to a term, the search is still selective. More bits
    /// hide nothing and only save decryption. Returns 8 for 512 values, 18 for a million.
    ///
    /// # Errors
    ///
    /// [`IndexError::DomainTooSmall`] for fewer than 512 values, which even the fewest bits do not hide.
    pub const fn bits_for(expected_distinct_values: u64) -> Result<u16, IndexError> {
        if expected_distinct_values < Self::MIN_DISTINCT {
            return Err(IndexError::DomainTooSmall {
                distinct: expected_distinct_values,
            });
        }
        // From 8 to 62.
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a logarithm of 64 bits is at most 63"
        )]
        Ok(expected_distinct_values.ilog2() as u16 - 1)
    }

    /// Tells whether two values are equal after normalisation: whether a decrypted candidate has the searched value, or
    /// only shares its term by chance.
    ///
    /// ```
    /// # use encx::search::{IndexField, Normalizer};
    /// const EMAIL: IndexField = IndexField::new("users", "email", 64).normalize(Normalizer::Email);
    ///
    /// assert!(EMAIL.is_same("Ada@BÜCHER.example", " ada@bücher.example")?);
    /// assert!(!EMAIL.is_same("ada@example.org", "eve@example.org")?);
    /// # Ok::<(), encx::search::IndexError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`IndexError`] if either value cannot be indexed.
    pub fn is_same(&self, one: impl IndexValue, other: impl IndexValue) -> Result<bool, IndexError> {
        Ok(self.message(&one)?.is_same(&self.message(&other)?))
    }

    /// Returns the table's name.
    #[must_use]
    pub const fn table(&self) -> &'static str {
        self.table
    }

    /// Returns the index's name; empty if it has none.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Lists the columns: one, unless it is a compound index.
    pub fn parts(&self) -> impl Iterator<Item = &IndexPart> {
        std::iter::once(&self.first).chain(self.more)
    }

    #[cfg(test)]
    pub(super) fn first_normalizer(&self) -> Normalizer {
        self.first.normalizer
    }

    /// Returns the number of bits of the hash that are kept.
    #[must_use]
    pub const fn bits(&self) -> u16 {
        self.bits
    }

    /// Returns the length of every [`BlindIndex`](crate::search::BlindIndex) of this index, in bytes.
    #[must_use]
    pub const fn stored_len(&self) -> usize {
        4 + self.bits.div_ceil(8) as usize
    }

    /// Tells whether its column may have a UNIQUE constraint.
    #[must_use]
    pub const fn is_unique(&self) -> bool {
        self.unique
    }

    /// Returns the info that derives the index's key: `"encx/index/v1" ‖ framed (table, column, name, normaliser, its
    /// version; for each further column: column, normaliser, its version) ‖ u16 bits`.
    fn info(&self, versions: &[u32]) -> Vec<u8> {
        let text = |text: &str| (TYPE_TEXT, text.as_bytes().to_vec());
        let mut parts = vec![text(self.table)];
        for (place, (part, version)) in self.parts().zip(versions).enumerate() {
            parts.push(text(part.column));
            if place == 0 {
                parts.push(text(self.name));
            }
            parts.push(text(&part.normalizer.id()));
            parts.push((TYPE_INTEGER, i128::from(*version).to_be_bytes().to_vec()));
        }
        let mut info = b"encx/index/v1".to_vec();
        frame(KIND_INDEX, &parts, &mut info);
        info.extend_from_slice(&self.bits.to_be_bytes());
        info
    }

    /// Normalises a value.
    pub(crate) fn message(&self, value: &(impl IndexValue + ?Sized)) -> Result<Message, IndexError> {
        let parts = self.parts_of(value)?;
        Ok(self.message_of(parts.normalize(self.normalizers())?))
    }

    /// Normalises a value for a search: by the current version of its normalisers, and by older ones.
    pub(crate) fn sought(&self, value: &(impl IndexValue + ?Sized)) -> Result<Vec<Message>, IndexError> {
        let parts = self.parts_of(value)?;
        let now = parts.normalize(self.normalizers())?;
        let mut versions = self.normalizers().zip(&now.versions);
        let mut all = if versions.any(|(normalizer, version)| normalizer.has_older(*version)) {
            parts.normalize_older(self.normalizers())?
        } else {
            Vec::new()
        };
        all.push(now);
        Ok(all
            .into_iter()
            .map(|normalized| self.message_of(normalized))
            .collect())
    }

    fn parts_of(&self, value: &(impl IndexValue + ?Sized)) -> Result<Parts, IndexError> {
        let parts = Parts::of(value)?;
        let (expected, found) = (1 + self.more.len(), parts.len());
        if found == expected {
            Ok(parts)
        } else {
            Err(IndexError::Parts { expected, found })
        }
    }

    fn normalizers(&self) -> impl Iterator<Item = Normalizer> {
        self.parts().map(|part| part.normalizer)
    }

    pub(super) fn message_of(&self, normalized: Normalized) -> Message {
        Message {
            info: self.info(&normalized.versions),
            normalized: normalized.bytes,
            bits: self.bits,
        }
    }
}

/// The kind of the frame that names an index.
const KIND_INDEX: u8 = 3;
