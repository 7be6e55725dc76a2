//! Describes where ciphertexts are stored: column, row and encryption context. Runs no SQL.

use uuid::Uuid;

use crate::aad::{Field, RowId};

/// Describes a column of ciphertexts, for jobs that visit its rows.
///
/// ```
/// use encx::record::{EncryptedColumn, RowIdKind};
///
/// let ssn = EncryptedColumn::new("users", "ssn")
///     .row_id("id", RowIdKind::Integer)
///     .context_column("tenantId", "tenant_id")
///     .context_value("purpose", "pii");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncryptedColumn {
    /// The table's name in SQL, such as `users` or `app.users`.
    pub sql_table: String,
    /// The column's name in SQL.
    pub sql_column: String,
    /// The table's name in the AAD.
    pub table: String,
    /// The column's name in the AAD.
    pub column: String,
    /// The path inside the column's value, for part of a nested value; otherwise empty.
    pub path: Vec<String>,
    /// The columns of the row's id, in order. Together they are unique.
    pub row_id: Vec<RowIdColumn>,
    /// The pairs of the encryption context: each key with the source of its value.
    pub context: Vec<(String, ContextSource)>,
    /// The columns, by their names in the AAD, whose values the AAD binds with [`Aad::bind`](crate::aad::Aad::bind). Jobs
    /// count such ciphertexts but do not re-encrypt them.
    pub bound: Vec<String>,
    /// The column's blind indexes. One over several columns is that of its first.
    pub indexes: Vec<IndexColumn>,
}

/// Describes the column of a blind index: where its terms are, and what they are computed from.
///
/// ```
/// use encx::record::{EncryptedColumn, IndexColumn};
///
/// let email = EncryptedColumn::new("users", "email").index(IndexColumn::new("email_index", "email", 32));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexColumn {
    /// The index's column in SQL.
    pub sql_column: String,
    /// The index's name; empty if it has none.
    pub name: String,
    /// How the encrypted column's values are normalised, such as `email`, or `custom/NAME` for a function of your own.
    pub normalizer: String,
    /// The further columns of a compound index, in order.
    pub with: Vec<IndexedColumn>,
    /// How many bits of the hash are kept.
    pub bits: u16,
    /// The pairs of the index's own encryption context; empty if it has that of the encrypted column.
    pub context: Vec<(String, ContextSource)>,
}

/// A further column of a compound index.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexedColumn {
    /// The encrypted column's name in the AAD.
    pub column: String,
    /// How its values are normalised.
    pub normalizer: String,
}

impl IndexColumn {
    /// Describes an index without a name, under the context of its encrypted column.
    #[must_use]
    pub fn new(sql_column: impl Into<String>, normalizer: impl Into<String>, bits: u16) -> Self {
        Self {
            sql_column: sql_column.into(),
            name: String::new(),
            normalizer: normalizer.into(),
            with: Vec::new(),
            bits,
            context: Vec::new(),
        }
    }

    /// Names the index.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds a further column, by its name in the AAD: the index is a compound one.
    #[must_use]
    pub fn with(mut self, column: impl Into<String>, normalizer: impl Into<String>) -> Self {
        self.with.push(IndexedColumn {
            column: column.into(),
            normalizer: normalizer.into(),
        });
        self
    }

    /// Adds a pair of the index's own encryption context, whose value is in a column of the same row.
    #[must_use]
    pub fn context_column(mut self, key: impl Into<String>, sql_column: impl Into<String>) -> Self {
        self.context
            .push((key.into(), ContextSource::Column(sql_column.into())));
        self
    }

    /// Adds a pair of the index's own encryption context that all rows share.
    #[must_use]
    pub fn context_value(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context
            .push((key.into(), ContextSource::Value(value.into())));
        self
    }
}

/// A column of a row's id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RowIdColumn {
    /// The column's name in SQL.
    pub sql_column: String,
    /// The type of its value.
    pub kind: RowIdKind,
}

/// The type of a part of a row's id, as the AAD frames it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RowIdKind {
    /// Bytes: `bytea`, `blob`.
    Bytes,
    /// An integer of any width.
    Integer,
    /// Text.
    Text,
    /// A UUID; in SQLite, 16 bytes or text.
    Uuid,
}

impl RowIdKind {
    /// Returns the kind's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Integer => "integer",
            Self::Text => "text",
            Self::Uuid => "uuid",
        }
    }
}

/// A type that is one part of a row's id, of a known kind.
#[diagnostic::on_unimplemented(
    message = "encx does not know what `{Self}` is as part of a row's id",
    label = "no row id whose kind is known",
    note = "if it is a type of your own that implements `encx::RowId`, say what it wraps: `#[encx(id(kind = \"integer\"))]`, \
            or \"text\", \"bytes\" or \"uuid\"; `Option` is none: ask the database for an id before you insert the row"
)]
pub trait RowIdPart: RowId {
    /// The kind as which the AAD frames it.
    const KIND: RowIdKind;
}

macro_rules! row_id_parts {
    ($($kind:ident: $($part:ty),+;)+) => {$($(
        impl RowIdPart for $part {
            const KIND: RowIdKind = RowIdKind::$kind;
        }
    )+)+};
}

row_id_parts! {
    Bytes: [u8], Vec<u8>;
    Integer: i8, i16, i32, i64, i128, isize, u8, u16, u32, u64, u128, usize;
    Text: str, String;
    Uuid: Uuid;
}

impl<const N: usize> RowIdPart for [u8; N] {
    const KIND: RowIdKind = RowIdKind::Bytes;
}

impl<T: RowIdPart + ?Sized> RowIdPart for &T {
    const KIND: RowIdKind = T::KIND;
}

/// The source of a value of the encryption context.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextSource {
    /// A column of the same row: text unchanged, an integer in decimal, a UUID in lower case with hyphens.
    Column(String),
    /// A value that all rows share.
    Value(String),
}

impl EncryptedColumn {
    /// Describes a column whose names in SQL and in the AAD are equal.
    #[must_use]
    pub fn new(table: impl Into<String>, column: impl Into<String>) -> Self {
        let (table, column) = (table.into(), column.into());
        Self {
            sql_table: table.clone(),
            sql_column: column.clone(),
            table,
            column,
            path: Vec::new(),
            row_id: Vec::new(),
            context: Vec::new(),
            bound: Vec::new(),
            indexes: Vec::new(),
        }
    }

    /// Describes a field's column, under the field's names.
    #[must_use]
    pub fn of(field: &Field) -> Self {
        Self::new(field.table(), field.column())
    }

    /// Sets the table's and the column's names in SQL, if they differ from those in the AAD.
    #[must_use]
    pub fn stored_in(mut self, sql_table: impl Into<String>, sql_column: impl Into<String>) -> Self {
        self.sql_table = sql_table.into();
        self.sql_column = sql_column.into();
        self
    }

    /// Adds a step of the path that [`Field::row_path`] binds.
    #[must_use]
    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }

    /// Adds a column of the row's id, in the order of the AAD's parts.
    #[must_use]
    pub fn row_id(mut self, sql_column: impl Into<String>, kind: RowIdKind) -> Self {
        self.row_id.push(RowIdColumn {
            sql_column: sql_column.into(),
            kind,
        });
        self
    }

    /// Names a column whose value the AAD binds with [`Aad::bind`](crate::aad::Aad::bind).
    #[must_use]
    pub fn bind(mut self, column: impl Into<String>) -> Self {
        self.bound.push(column.into());
        self
    }

    /// Adds a blind index.
    #[must_use]
    pub fn index(mut self, index: IndexColumn) -> Self {
        self.indexes.push(index);
        self
    }

    /// Adds a pair of the encryption context whose value is in a column of the same row.
    #[must_use]
    pub fn context_column(mut self, key: impl Into<String>, sql_column: impl Into<String>) -> Self {
        self.context
            .push((key.into(), ContextSource::Column(sql_column.into())));
        self
    }

    /// Adds a pair of the encryption context that all rows share.
    #[must_use]
    pub fn context_value(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.context
            .push((key.into(), ContextSource::Value(value.into())));
        self
    }
}
