//! A described column, checked and with its names quoted.

use encx::jobs::JobError;
use encx::record::{ContextSource, EncryptedColumn, RowIdKind};
use encx::{Aad, Ciphertext, EncryptionContext, Field};

use crate::cell::{Cell, Framed, Id};
use crate::error::RowsError;
use crate::ident::Ident;

/// What a plaintext column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlainKind {
    Bytes,
    Integer,
    Text,
    Uuid,
}

impl PlainKind {
    /// Says which types such a column may have.
    pub(crate) fn expected(self) -> &'static str {
        expected(match self {
            Self::Bytes => RowIdKind::Bytes,
            Self::Integer => RowIdKind::Integer,
            Self::Text => RowIdKind::Text,
            Self::Uuid => RowIdKind::Uuid,
        })
    }
}

/// A column whose plaintext becomes a ciphertext.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) name: String,
    pub(crate) ident: Ident,
    pub(crate) kind: PlainKind,
}

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) described: EncryptedColumn,
    pub(crate) table: Ident,
    pub(crate) cipher: Ident,
    pub(crate) ids: Vec<Ident>,
    pub(crate) kinds: Vec<RowIdKind>,
    /// The columns that the context needs, in the order of `described.context`.
    pub(crate) context: Vec<Ident>,
    pub(crate) plain: Option<Plain>,
    field: Field,
}

/// The bytes of a ciphertext that say how it was encrypted: version, suite and key.
pub(crate) const HEADER: usize = 18;

/// What was read of a row.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: Id,
    /// The values of the context's columns; `None` for NULL.
    pub(crate) context: Vec<Option<String>>,
    /// The ciphertext; of a page's rows only its header.
    pub(crate) cipher: Option<Vec<u8>>,
    /// The plaintext; `None` in a page.
    pub(crate) plain: Option<Cell>,
    /// How many bytes the ciphertext and the plaintext have together.
    pub(crate) size: u64,
    /// Whether the ciphertext, and the plaintext if there is one, are all there, and not their heads alone.
    pub(crate) whole: bool,
}

impl Row {
    /// Gives up what a page does not have: a row that waits must not hold a large value.
    pub(crate) fn shed(mut self) -> Self {
        self.plain = None;
        self.cipher = self
            .cipher
            .map(|cipher| cipher[..cipher.len().min(HEADER)].to_vec());
        self.whole = false;
        self
    }
}

/// A row that cannot be read, and why.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) id: Id,
    pub(crate) error: JobError,
}

/// A row, if it could be read: one that could not holds up no other.
pub(crate) type Read = Result<Row, Unread>;

/// A row as it was read, and its new ciphertext if it gets one.
pub(crate) struct Change {
    pub(crate) row: Row,
    pub(crate) cipher: Option<Vec<u8>>,
}

impl Change {
    pub(crate) fn encrypted(row: Row, cipher: Ciphertext) -> Self {
        let cipher = Some(cipher.into_bytes());
        Self { row, cipher }
    }

    pub(crate) fn emptied(row: Row) -> Self {
        Self { row, cipher: None }
    }
}

impl Layout {
    pub(crate) fn new(described: EncryptedColumn) -> Result<Self, RowsError> {
        let wrong = |what: String| {
            let (table, column) = (&described.sql_table, &described.sql_column);
            RowsError::Description {
                what: format!("the description of {table}.{column} {what}"),
            }
        };
        let ids = described
            .row_id
            .iter()
            .map(|part| Ident::column(&part.sql_column));
        let ids: Vec<_> = ids.collect::<Result<_, _>>()?;
        if ids.is_empty() {
            return Err(wrong(
                "names no column of the row's id; add it with `row_id`".to_owned(),
            ));
        }
        let mut context = Vec::new();
        for (_, source) in &described.context {
            if let ContextSource::Column(name) = source {
                context.push(Ident::column(name)?);
            }
        }
        let field = Field::try_new(&*described.table, &*described.column);
        let layout = Self {
            table: Ident::table(&described.sql_table)?,
            cipher: Ident::column(&described.sql_column)?,
            ids,
            kinds: described.row_id.iter().map(|part| part.kind).collect(),
            context,
            plain: None,
            field: field.map_err(|error| wrong(format!("has no name for the AAD: {error}")))?,
            described,
        };
        // With some value for each column: what is wrong with the pairs themselves is said at once.
        let some = vec![Some("x".to_owned()); layout.context.len()];
        if let Err(RowContext::Unfit(error)) = layout.context_of(&some) {
            let what = format!("has an encryption context that cannot be used: {error}");
            let (table, column) = (&layout.described.sql_table, &layout.described.sql_column);
            let what = format!("the description of {table}.{column} {what}");
            return Err(RowsError::Description { what });
        }
        Ok(layout)
    }

    /// Builds a row's encryption context of the values of its columns.
    pub(crate) fn context_of(&self, values: &[Option<String>]) -> Result<EncryptionContext, RowContext> {
        let mut values = values.iter();
        let mut builder = EncryptionContext::builder();
        for (key, source) in &self.described.context {
            let value = match source {
                ContextSource::Value(value) => value,
                _ => match values.next() {
                    Some(Some(value)) => value,
                    _ => return Err(RowContext::Null(key.clone())),
                },
            };
            builder = builder.pair(key, value);
        }
        builder.build().map_err(RowContext::Unfit)
    }

    /// Binds to a row.
    pub(crate) fn aad(&self, id: &Id) -> Result<Aad, RowsError> {
        let framed = Framed(id, &self.kinds);
        if let Some(error) = self.misfit(id) {
            return Err(error);
        }
        Ok(if self.described.path.is_empty() {
            self.field.row(framed)
        } else {
            self.field.row_path(framed, &self.described.path)
        })
    }

    /// Says why a row's id cannot be what it is described as; `None` if it can.
    pub(crate) fn misfit(&self, id: &Id) -> Option<RowsError> {
        let place = Framed(id, &self.kinds).misfit()?;
        let column = &self.described.row_id[place].sql_column;
        Some(self.mistyped(column, id.0[place].type_name(), expected(self.kinds[place])))
    }

    /// Says that a column's value is of another type.
    pub(crate) fn mistyped(&self, column: &str, found: &str, expected: &'static str) -> RowsError {
        RowsError::ColumnType {
            table: self.described.sql_table.clone(),
            column: column.to_owned(),
            found: found.to_owned(),
            expected,
        }
    }

    /// Names the columns that the context needs, as they are described.
    pub(crate) fn context_columns(&self) -> impl Iterator<Item = &str> {
        self.described
            .context
            .iter()
            .filter_map(|(_, source)| match source {
                ContextSource::Column(name) => Some(name.as_str()),
                _ => None,
            })
    }

    /// Says that the plaintext column cannot be emptied.
    pub(crate) fn not_null(&self) -> RowsError {
        RowsError::NotNull {
            table: self.described.sql_table.clone(),
            column: self
                .plain
                .as_ref()
                .map_or(String::new(), |plain| plain.name.clone()),
        }
    }

    /// Names the column as it stands in a statement.
    pub(crate) fn quoted_name(&self) -> String {
        format!("{}.{}", self.table.as_str(), self.cipher.as_str())
    }

    /// Names a row for people.
    pub(crate) fn name_of(&self, id: &Id) -> String {
        let (table, column) = (&self.described.sql_table, &self.described.sql_column);
        format!("{table}.{column} of row {id}")
    }
}

/// Why a row has no encryption context.
pub(crate) enum RowContext {
    /// A pair's column is NULL.
    Null(String),
    /// The pairs are no encryption context.
    Unfit(encx::ContextError),
}

/// Says which types a part of a row's id may have.
pub(crate) fn expected(kind: RowIdKind) -> &'static str {
    match kind {
        RowIdKind::Bytes => "bytea or blob",
        RowIdKind::Integer => "smallint, integer or bigint",
        RowIdKind::Text => "text or varchar",
        RowIdKind::Uuid => "uuid; in SQLite 16 bytes or text",
        _ => "a type that this version of encx-tables knows",
    }
}
