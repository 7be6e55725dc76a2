//! Where a record's fields lie: one table, one row, and the way down into what is nested.

use std::borrow::Cow;

use encx_core::aad::{Aad, ColumnValue, Field, RowId};

/// Columns that a value is bound to, with what they hold.
pub(super) type Bound<'v> = &'v [(&'static str, &'v dyn ColumnValue)];

/// Knows the place of a record's fields, and of those of the fragments in it.
pub struct Row<'r> {
    table: &'static str,
    id: &'r dyn RowId,
    /// The nested fields that lead to where we are: name in the struct and column, outermost first.
    way: Vec<(&'static str, &'static str)>,
}

impl<'r> Row<'r> {
    /// Begins at a row.
    #[must_use]
    pub fn new(table: &'static str, id: &'r dyn RowId) -> Self {
        let way = Vec::new();
        Self { table, id, way }
    }

    /// Goes down into a nested field.
    pub fn enter(&mut self, name: &'static str, column: &'static str) {
        self.way.push((name, column));
    }

    /// Comes up again.
    pub fn leave(&mut self) {
        self.way.pop();
    }

    /// Binds to a column here. A nested one is a step of the path below the outermost field's column.
    #[must_use]
    pub fn aad(&self, column: &'static str) -> Aad {
        let Some(((_, outermost), steps)) = self.way.split_first() else {
            return Field::new(self.table, column).row(self.id);
        };
        let steps = steps.iter().map(|(_, step)| *step).chain([column]);
        Field::new(self.table, outermost).row_path(self.id, steps)
    }

    /// Binds to a column here, and to values of other columns.
    pub(super) fn bound_aad(&self, column: &'static str, bound: Bound<'_>) -> Aad {
        let values = bound.iter();
        values.fold(self.aad(column), |aad, (column, value)| aad.bind(column, value))
    }

    /// Names a field here, for errors.
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
