//! A record's description of its columns: for jobs that visit rows, and for the test that pins them.

use std::fmt::Write;

use encx_core::column::{ContextSource, EncryptedColumn, IndexColumn, RowIdKind};

use crate::search::IndexField;

/// Collects the columns of a record.
#[derive(Debug, Default)]
pub struct Description {
    table: Names,
    ids: Vec<(&'static str, RowIdKind)>,
    context: Vec<(&'static str, ContextSource)>,
    /// The nested fields on the path to the current one: column, and prefix of their columns in SQL.
    way: Vec<(&'static str, &'static str)>,
    columns: Vec<(EncryptedColumn, &'static str)>,
    /// Blind indexes and passwords: their manifest line, and their own context.
    others: Vec<(String, Vec<(&'static str, ContextSource)>)>,
}

/// A name in the AAD and in SQL.
#[derive(Debug, Default)]
struct Names {
    aad: &'static str,
    sql: &'static str,
}

impl Description {
    /// Names the table.
    pub fn table(&mut self, aad: &'static str, sql: &'static str) {
        self.table = Names { aad, sql };
    }

    /// Adds a column of the row's id.
    pub fn id(&mut self, sql: &'static str, kind: RowIdKind) {
        self.ids.push((sql, kind));
    }

    /// Adds a pair of the context whose value is in a column.
    pub fn context_column(&mut self, key: &'static str, sql: &'static str) {
        self.context.push((key, ContextSource::Column(sql.to_owned())));
    }

    /// Adds a pair of the context with a fixed value.
    pub fn context_value(&mut self, key: &'static str, value: &'static str) {
        self.context.push((key, ContextSource::Value(value.to_owned())));
    }

    /// Adds a column of ciphertexts.
    pub fn field(&mut self, aad: &'static str, sql: &'static str, format: &'static str) {
        self.bound_field(aad, sql, format, &[]);
    }

    /// Adds a column of ciphertexts that are bound to the values of other columns.
    pub fn bound_field(
        &mut self,
        aad: &'static str,
        sql: &'static str,
        format: &'static str,
        bound: &[&'static str],
    ) {
        let mut prefixed: String = self.way.iter().map(|(_, prefix)| *prefix).collect();
        prefixed.push_str(sql);
        let (outermost, path) = match self.way.split_first() {
            Some(((outermost, _), steps)) => {
                let steps = steps.iter().map(|(step, _)| *step);
                (*outermost, steps.chain([aad]).collect())
            }
            None => (aad, Vec::new()),
        };
        let mut column = EncryptedColumn::new(self.table.aad, outermost).stored_in(self.table.sql, prefixed);
        column = path.into_iter().fold(column, EncryptedColumn::step);
        column = bound.iter().fold(column, |column, name| column.bind(*name));
        for (sql, kind) in &self.ids {
            column = column.row_id(*sql, *kind);
        }
        column.context = owned(&self.context);
        self.columns.push((column, format));
    }

    /// Adds a blind index.
    pub fn index(&mut self, sql: &'static str, index: &IndexField, own: Vec<(&'static str, ContextSource)>) {
        let mut text = String::new();
        for part in index.parts() {
            let (name, version) = (part.normalizer().name(), part.normalizer().version());
            let _ = write!(text, "{} as {name}/{version}, ", part.column());
        }
        let name = match index.name() {
            "" => String::new(),
            name => format!("named {name}, "),
        };
        let (bits, table) = (index.bits(), self.table.sql);
        let line = format!("index of {text}{name}{bits} bits, in {table}.{sql}");
        self.describe_index(sql, index, &own);
        self.others.push((line, own));
    }

    /// Adds a blind index to its first column, which was added before: only records have indexes, and none of nested fields.
    fn describe_index(
        &mut self,
        sql: &'static str,
        index: &IndexField,
        own: &[(&'static str, ContextSource)],
    ) {
        let mut parts = index.parts();
        let Some(first) = parts.next() else { return };
        let described = IndexColumn::new(sql, first.normalizer().id(), index.bits()).named(index.name());
        let mut described = parts.fold(described, |described, part| {
            described.with(part.column(), part.normalizer().id())
        });
        described.context = owned(own);
        let of = self
            .columns
            .iter_mut()
            .find(|(column, _)| column.path.is_empty() && column.column == first.column());
        if let Some((column, _)) = of {
            column.indexes.push(described);
        }
    }

    /// Adds a password.
    pub fn password(
        &mut self,
        aad: &'static str,
        sql: &'static str,
        own: Vec<(&'static str, ContextSource)>,
    ) {
        let line = format!("password {aad}: in {}.{sql}", self.table.sql);
        self.others.push((line, own));
    }

    /// Enters a nested field.
    pub fn enter(&mut self, column: &'static str, prefix: &'static str) {
        self.way.push((column, prefix));
    }

    /// Leaves a nested field.
    pub fn leave(&mut self) {
        self.way.pop();
    }

    /// Returns the columns of ciphertexts.
    #[must_use]
    pub fn into_columns(self) -> Vec<EncryptedColumn> {
        self.columns.into_iter().map(|(column, _)| column).collect()
    }

    /// Lists everything that ciphertexts depend on, one item a line, for a test to compare.
    #[must_use]
    pub fn manifest(&self) -> String {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{line}");
        };
        line(format_args!("table {}", self.table.aad));
        for (sql, kind) in &self.ids {
            line(format_args!("id {sql}: {}", kind.name()));
        }
        for (key, source) in &self.context {
            line(format_args!("context {}", pair(key, source)));
        }
        for (column, format) in &self.columns {
            let place = std::iter::once(&column.column).chain(&column.path);
            let place = place.map(String::as_str).collect::<Vec<_>>().join("/");
            let (table, sql) = (&column.sql_table, &column.sql_column);
            let bound = match column.bound.as_slice() {
                [] => String::new(),
                names => format!(", bound to {}", names.join(", ")),
            };
            line(format_args!("field {place}: {format}{bound}, in {table}.{sql}"));
        }
        for (other, own) in &self.others {
            let own: String = own
                .iter()
                .map(|(key, source)| format!(", context {}", pair(key, source)))
                .collect();
            line(format_args!("{other}{own}"));
        }
        text
    }
}

fn owned(pairs: &[(&'static str, ContextSource)]) -> Vec<(String, ContextSource)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, source)| ((*key).to_owned(), source.clone()))
        .collect()
}

fn pair(key: &str, source: &ContextSource) -> String {
    match source {
        ContextSource::Column(column) => format!("{key} = column {column}"),
        ContextSource::Value(value) => format!("{key} = {value:?}"),
        source => format!("{key} = {source:?}"),
    }
}
