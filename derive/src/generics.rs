//! The generic parameters of the generated struct, and the bounds of the impls.

use std::collections::HashSet;

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::quote;
use syn::spanned::Spanned;
use syn::{GenericParam, Generics, Type, WherePredicate, parse_quote};

use crate::field::Role;
use crate::model::Model;
use crate::types::names_in;

/// The generated struct has only the parameters that its fields use: a `T` that becomes a ciphertext is dropped.
pub(crate) struct Split {
    /// The parameters of the generated struct, with their bounds.
    pub(crate) kept: Generics,
    /// The others.
    pub(crate) dropped: Generics,
}

impl Split {
    pub(crate) fn of(model: &Model) -> Self {
        let mut used = HashSet::new();
        for field in &model.fields {
            if !matches!(
                field.role,
                Role::Password { .. } | Role::Token { .. } | Role::Value { .. }
            ) {
                used.extend(names_in(&field.ty));
            }
        }
        let is_kept = |param: &GenericParam| used.contains(&name_of(param));
        let (mut kept, mut dropped) = (Generics::default(), Generics::default());
        let mut gone = HashSet::new();
        for param in &model.generics.params {
            if is_kept(param) {
                kept.params.push(param.clone());
            } else {
                gone.insert(name_of(param));
                dropped.params.push(without_default(param));
            }
        }
        for predicate in model
            .generics
            .where_clause
            .iter()
            .flat_map(|clause| &clause.predicates)
        {
            let side = if names_in(predicate).is_disjoint(&gone) {
                &mut kept
            } else {
                &mut dropped
            };
            side.make_where_clause().predicates.push(predicate.clone());
        }
        for field in &model.fields {
            if let Role::Nested { .. } = field.role {
                let (ty, _) = field.value_type();
                if mentions_a_type(&model.generics, ty) {
                    let krate = &model.krate;
                    let bound = parse_quote!(#ty: #krate::record::Fragment);
                    kept.make_where_clause().predicates.push(bound);
                }
            }
        }
        Self { kept, dropped }
    }
}

fn name_of(param: &GenericParam) -> String {
    match param {
        GenericParam::Const(param) => param.ident.to_string(),
        GenericParam::Lifetime(param) => param.lifetime.to_string(),
        GenericParam::Type(param) => param.ident.to_string(),
    }
}

fn without_default(param: &GenericParam) -> GenericParam {
    let mut param = param.clone();
    match &mut param {
        GenericParam::Const(param) => (param.eq_token, param.default) = (None, None),
        GenericParam::Lifetime(_) => {}
        GenericParam::Type(param) => (param.eq_token, param.default) = (None, None),
    }
    param
}

/// Tells whether a type depends on one of these type parameters. Bounds on other types are left to the compiler, whose
/// message then points at the field.
fn mentions_a_type(generics: &Generics, ty: &Type) -> bool {
    let names = names_in(ty);
    generics
        .type_params()
        .any(|param| names.contains(&param.ident.to_string()))
}

/// The bounds of the impls on fields, besides the struct's own. Includes non-generic fields: a missing impl is then
/// reported once, at the field, and not at every use.
pub(crate) fn bounds(model: &Model) -> Vec<WherePredicate> {
    let krate = &model.krate;
    let bound = |ty: &Type, bound: TokenStream| -> WherePredicate {
        let bound = respanned(bound, ty.span());
        parse_quote!(#ty: #bound)
    };
    let mut bounds = Vec::new();
    let in_compounds: HashSet<_> = model
        .compounds
        .iter()
        .flat_map(|compound| &compound.fields)
        .collect();
    for (at, field) in model.fields.iter().enumerate() {
        let (ty, _) = field.value_type();
        match &field.role {
            Role::Id { kind: None } => bounds.push(bound(&field.ty, quote!(#krate::record::RowIdPart))),
            Role::Id { kind: Some(_) } => bounds.push(bound(&field.ty, quote!(#krate::RowId))),
            Role::Nested { .. } => bounds.push(bound(ty, quote!(#krate::record::Fragment))),
            Role::Password { .. } => bounds.push(bound(ty, quote!(#krate::__private::PasswordField))),
            Role::Plain => {}
            Role::Token { bound: names } => {
                bounds.push(bound(ty, quote!(#krate::__private::TokenField)));
                for field in names.iter().filter_map(|name| model.field(name)) {
                    bounds.push(bound(&field.ty, quote!(#krate::record::ColumnValue)));
                }
            }
            Role::Value { json: false } => bounds.push(bound(ty, quote!(#krate::record::FieldCodec))),
            Role::Value { json: true } => {
                bounds.push(bound(ty, quote!(#krate::__private::serde::Serialize)));
                bounds.push(bound(ty, quote!(#krate::__private::serde::de::DeserializeOwned)));
            }
        }
        if !field.indexes.is_empty() || in_compounds.contains(&at) {
            bounds.push(bound(ty, quote!(#krate::search::IndexValue)));
        }
    }
    bounds
}

/// Gives tokens the span at which the compiler should point.
fn respanned(tokens: TokenStream, span: Span) -> TokenStream {
    let respan = |token| match token {
        TokenTree::Group(group) => {
            let mut group = Group::new(group.delimiter(), respanned(group.stream(), span));
            group.set_span(span);
            TokenTree::Group(group)
        }
        mut token => {
            token.set_span(span);
            token
        }
    };
    tokens.into_iter().map(respan).collect()
}

/// The additional bounds of encryption, which copies plain fields.
pub(crate) fn copies(model: &Model) -> Vec<WherePredicate> {
    let plain = |role: &Role| matches!(role, Role::Id { .. } | Role::Plain);
    let generic = model
        .fields
        .iter()
        .filter(|field| plain(&field.role) && mentions_a_type(&model.generics, &field.ty));
    generic
        .map(|field| {
            let ty = &field.ty;
            parse_quote!(#ty: ::core::clone::Clone)
        })
        .collect()
}

/// Adds predicates to a where clause.
pub(crate) fn with(generics: &Generics, predicates: impl IntoIterator<Item = WherePredicate>) -> Generics {
    let mut generics = generics.clone();
    let mut predicates = predicates.into_iter().peekable();
    if predicates.peek().is_some() {
        generics.make_where_clause().predicates.extend(predicates);
    }
    generics
}
