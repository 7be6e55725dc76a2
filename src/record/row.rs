//! The places of a record's fields: one table, one row, and the path into nested fields.

use std::borrow::Cow;

use encx_core::aad::{Aad, ColumnValue, RowId};

/// Columns that a value is bound to, with their values.
pub(super) type Bound<'v> = &'v [(&'static str, &'v dyn ColumnValue)];

/// Tracks the place of a record's fields, and of those of its fragments.
pub struct Row<'r> {
    table: &'static str,
    id: &'r dyn RowId,
    /// The nested fields on the path to the current one: name in the struct and column, outermost first.
    way: Vec<(&'static str, &'static str)>,
}

impl<'r> Row<'r> {
    /// Starts at a row.
    #[must_use]
    pub fn new(table: &'static str, id: &'r dyn RowId) -> Self {
        let way = Vec::new();
        Self { table, id, way }
    }

    /// Enters a nested field.
    pub fn enter(&mut self, name: &'static str, column: &'static str) {
        self.way.push((name, column));
    }

    /// Leaves a nested field.
    pub fn leave(&mut self) {
        self.way.pop();
    }

    /// Binds to a column at this place. A nested column is a step of the path below the outermost field's column.
    #[must_use]
    pub fn aad(&self, column: &'static str) -> Aad {
        let Some(((_, outermost), steps)) = self.way.split_first() else {
            return Aad::of_column(self.table, column).row(self.id);
        };
        let steps = steps.iter().map(|(_, step)| *step).chain([column]);
        steps.fold(Aad::of_column(self.table, outermost).row(self.id), Aad::step)
    }

    /// Binds to a column at this place, and to values of other columns.
    pub(super) fn bound_aad(&self, column: &'static str, bound: Bound<'_>) -> Aad {
        let values = bound.iter();
        values.fold(self.aad(column), |aad, (column, value)| aad.bind(column, value))
    }

    /// Returns the name of a field at this place, for errors.
    pub(super) fn name(&self, field: &'static str) -> Cow<'static, str> {
        if self.way.is_empty() {
            return field.into();
        }
        let mut name = String::new();
        for (step, _) in &self.way {
            name.push_str(step);
            name.push('.');
        }
        name.push_str(field);
        name.into()
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("table", &self.table)
            .field("way", &self.way)
            .finish_non_exhaustive()
    }
}
