//! Which mutants a source file has: its text in, places and what may stand there instead out.
//!
//! Left alone is what is not the product's doing under the simulator: tests, code of one build only, constants (they
//! are computed before a mutant is chosen), patterns, the inside of macros (sabotages, marks, logs), and metrics.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Expr, Lit, Signature, Stmt, UnOp};

use super::operators;

/// What tells a mutant from all others, whatever else changes in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// From the top of the tree.
    pub file: String,
    pub function: String,
    /// What is done.
    pub change: String,
    /// To what, blanks made one. Empty where it is the function as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Which one, from 1, of those that are the same in everything else.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub nth: u32,
}

impl Key {
    /// Without the file.
    pub fn what(&self) -> String {
        let Self { function, change, text, nth, .. } = self;
        let text = if text.is_empty() { String::new() } else { format!(": `{text}`") };
        let nth = if *nth == 1 { String::new() } else { format!(" ({nth}.)") };
        format!("{function}: {change}{text}{nth}")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what())
    }
}

fn first() -> u32 {
    1
}

fn is_first(nth: &u32) -> bool {
    *nth == 1
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutant {
    pub key: Key,
    pub line: usize,
    /// What takes its place; what that means is for the site to say.
    pub instead: String,
}

/// How mutants are put into a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An expression, of whose alternatives one is taken.
    Value,
    /// A statement that may be left out.
    Statement,
    /// The beginning of a function, which may answer at once.
    Entry,
    /// The end of a match arm's pattern, which may not match.
    Arm,
    /// The guard of a match arm that may not match.
    GuardedArm,
}

/// A place with its mutants.
#[derive(Clone, Debug)]
pub struct Site {
    /// In bytes of the file.
    pub place: Range<usize>,
    pub form: Form,
    /// The function around it, in bytes of the file.
    pub function: Range<usize>,
    pub mutants: Vec<Mutant>,
}

/// A file's sites, outer ones before inner ones.
pub struct Generated {
    pub sites: Vec<Site>,
    /// Modules that are declared to be of tests or of one build only.
    pub not_product: Vec<String>,
}

pub fn generate(file: &str, text: &str) -> Result<Generated> {
    let parsed = syn::parse_file(text).with_context(|| format!("cannot parse {file}"))?;
    let mut finder =
        Finder { file, text, names: Vec::new(), function: 0..0, sites: Vec::new(), not_product: Vec::new() };
    finder.visit_file(&parsed);
    let Finder { mut sites, not_product, .. } = finder;
    // A place without extent comes before what begins there, as the text it adds does.
    sites.sort_by_key(|site| (site.place.start, !site.place.is_empty(), usize::MAX - site.place.end));
    number(&mut sites);
    Ok(Generated { sites, not_product })
}

fn number(sites: &mut [Site]) {
    let mut seen = BTreeMap::new();
    for mutant in sites.iter_mut().flat_map(|site| &mut site.mutants) {
        let count: &mut u32 = seen.entry(mutant.key.clone()).or_default();
        *count += 1;
        mutant.key.nth = *count;
    }
}

struct Finder<'t> {
    file: &'t str,
    text: &'t str,
    /// Of the types and functions around.
    names: Vec<String>,
    function: Range<usize>,
    sites: Vec<Site>,
    not_product: Vec<String>,
}

impl Finder<'_> {
    fn text(&self, of: &impl Spanned) -> &str {
        &self.text[of.span().byte_range()]
    }

    fn mutant(&self, place: &Range<usize>, change: String, text: &str, instead: String) -> Mutant {
        let key = Key {
            file: self.file.into(),
            function: self.names.join("::"),
            change,
            text: text.split_whitespace().collect::<Vec<_>>().join(" "),
            nth: 1,
        };
        let line = 1 + self.text[..place.start].matches('\n').count();
        Mutant { key, line, instead }
    }

    fn site(&mut self, place: Range<usize>, form: Form, mutants: Vec<Mutant>) {
        if !self.function.is_empty() && !mutants.is_empty() {
            self.sites.push(Site { place, form, function: self.function.clone(), mutants });
        }
    }

    /// An expression with what may stand in its place, each with its name.
    fn value(&mut self, expression: &Expr, alternatives: Vec<(String, String)>) {
        let place = expression.span().byte_range();
        let text = &self.text[place.clone()];
        let mutants =
            alternatives.into_iter().map(|(change, instead)| self.mutant(&place, change, text, instead)).collect();
        self.site(place, Form::Value, mutants);
    }

    fn binary(&mut self, expression: &Expr, binary: &syn::ExprBinary) {
        if operators::binds(expression) {
            return;
        }
        let op = self.text(&binary.op);
        // Brackets, because another operator may bind otherwise.
        let (left, right) = (self.text(&binary.left), self.text(&binary.right));
        let alternatives = operators::swapped(&binary.op)
            .iter()
            .map(|other| (format!("replace {op} with {other}"), format!("({left}) {other} ({right})")))
            .collect();
        self.value(expression, alternatives);
    }

    fn condition(&mut self, condition: &Expr) {
        let covered = match condition {
            Expr::Binary(binary) => operators::is_comparison(&binary.op),
            Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)),
            _ => false,
        };
        if !covered && !operators::binds(condition) && !operators::is_macro(condition) {
            let instead = format!("!({})", self.text(condition));
            self.value(condition, vec![("negate the condition".into(), instead)]);
        }
    }

    fn arms(&mut self, matched: &syn::ExprMatch) {
        let catches_all = |arm: &syn::Arm| {
            let any = match &arm.pat {
                syn::Pat::Wild(_) => true,
                syn::Pat::Ident(ident) => ident.subpat.is_none() && starts_lower(&ident.ident.to_string()),
                _ => false,
            };
            any && arm.guard.is_none()
        };
        let has_rest = matched.arms.iter().any(catches_all);
        for arm in &matched.arms {
            if is_of_one_build(&arm.attrs) {
                continue;
            }
            let pattern = arm.pat.span().byte_range();
            let deleted = has_rest && !catches_all(arm);
            let delete = |finder: &Self| {
                vec![finder.mutant(&pattern, "delete the arm".into(), &finder.text[pattern.clone()], String::new())]
            };
            match &arm.guard {
                Some((_, guard)) if operators::is_macro(guard) || operators::binds(guard) => {}
                Some((_, guard)) => {
                    if deleted {
                        let mutants = delete(self);
                        self.site(guard.span().byte_range(), Form::GuardedArm, mutants);
                    }
                    let fixed =
                        ["true", "false"].map(|value| (format!("replace the guard with {value}"), value.to_owned()));
                    self.value(guard, fixed.into());
                }
                None if deleted => {
                    let mutants = delete(self);
                    self.site(pattern.end..pattern.end, Form::Arm, mutants);
                }
                None => {}
            }
        }
    }

    /// Fields beside a base (`..base`) are left to the base.
    fn fields(&mut self, expression: &Expr, made: &syn::ExprStruct) {
        if made.rest.is_none() {
            return;
        }
        let whole = expression.span().byte_range();
        let without = |field: &syn::FieldValue| {
            let place = field.span().byte_range();
            let after = self.text[place.end..].find(',').map_or(place.end, |comma| place.end + comma + 1);
            format!("{}{}", &self.text[whole.start..place.start], &self.text[after..whole.end])
        };
        let alternatives = made
            .fields
            .iter()
            .map(|field| (format!("delete the field {}", self.text(&field.member)), without(field)))
            .collect();
        self.value(expression, alternatives);
    }

    fn function(
        &mut self,
        attributes: &[Attribute],
        signature: &Signature,
        block: &Block,
        visit: impl FnOnce(&mut Self),
    ) {
        let left_alone = signature.constness.is_some() || signature.unsafety.is_some() || is_test(attributes);
        if left_alone || is_of_one_build(attributes) {
            return;
        }
        let outer = std::mem::replace(&mut self.function, block.span().byte_range());
        self.names.push(signature.ident.to_string());
        self.entry(signature, block);
        visit(self);
        self.names.pop();
        self.function = outer;
    }

    fn entry(&mut self, signature: &Signature, block: &Block) {
        let open = block.brace_token.span.open().byte_range().end;
        let body = self.text[open..block.span().byte_range().end - 1].trim();
        let makes_default = signature.ident == "default" && signature.inputs.is_empty();
        // What does nothing else anyway.
        let same = |value: &String| body == value || (body.is_empty() && value == "()");
        if makes_default || body == "true" || body == "false" {
            return;
        }
        let answers = operators::answers(&signature.output).into_iter().filter(|value| !same(value));
        let mutants = answers.map(|value| self.mutant(&(open..open), format!("return {value}"), "", value)).collect();
        self.site(open..open, Form::Entry, mutants);
    }
}

/// Whether it is of tests, or of either the real or the simulated build.
fn is_of_one_build(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg"))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().segments.last().is_some_and(|last| last.ident == "test"))
}

fn starts_lower(name: &str) -> bool {
    name.starts_with(|c: char| c.is_lowercase() || c == '_')
}

impl<'t> Visit<'t> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'t syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block, |finder| visit::visit_item_fn(finder, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'t syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block, |finder| visit::visit_impl_item_fn(finder, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'t syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.attrs, &item.sig, block, |finder| visit::visit_trait_item_fn(finder, item));
        }
    }

    fn visit_item_impl(&mut self, item: &'t syn::ItemImpl) {
        let is_debug = item
            .trait_
            .as_ref()
            .is_some_and(|(_, path, _)| path.segments.last().is_some_and(|last| last.ident == "Debug"));
        if is_of_one_build(&item.attrs) || is_debug {
            return;
        }
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        let name = name.unwrap_or_else(|| self.text(&item.self_ty).to_owned());
        self.names.push(name);
        visit::visit_item_impl(self, item);
        self.names.pop();
    }

    fn visit_item_trait(&mut self, item: &'t syn::ItemTrait) {
        self.names.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.names.pop();
    }

    fn visit_item_mod(&mut self, item: &'t syn::ItemMod) {
        if is_of_one_build(&item.attrs) {
            self.not_product.push(item.ident.to_string());
        } else if item.content.is_some() {
            self.names.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.names.pop();
        }
    }

    fn visit_stmt(&mut self, statement: &'t Stmt) {
        let attributes: &[Attribute] = match statement {
            Stmt::Local(local) => &local.attrs,
            Stmt::Macro(of) => &of.attrs,
            Stmt::Expr(expression, _) => attributes_of(expression),
            Stmt::Item(_) => &[],
        };
        if is_of_one_build(attributes) {
            return;
        }
        if operators::is_deletable(statement) {
            let place = statement.span().byte_range();
            let text = &self.text[place.clone()];
            let alone = self.text[self.function.clone()].trim_matches(|c: char| "{}".contains(c) || c.is_whitespace());
            // What is only counted for people is not judged; and a function without its one statement is one that
            // returns at once.
            if !text.contains("metrics") && alone != text {
                let mutant = self.mutant(&place, "delete the statement".into(), text, String::new());
                self.site(place, Form::Statement, vec![mutant]);
            } else if text.contains("metrics") {
                return;
            }
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr(&mut self, expression: &'t Expr) {
        if is_of_one_build(attributes_of(expression)) {
            return;
        }
        match expression {
            Expr::Binary(binary) => self.binary(expression, binary),
            Expr::Unary(unary) if operators::is_macro(&unary.expr) => {}
            Expr::Unary(unary) => {
                let op = match unary.op {
                    UnOp::Not(_) => Some("!"),
                    UnOp::Neg(_) => Some("-"),
                    _ => None,
                };
                if let Some(op) = op {
                    let operand = self.text(&unary.expr).to_owned();
                    self.value(expression, vec![(format!("delete {op}"), operand)]);
                }
            }
            Expr::If(of) => self.condition(&of.cond),
            Expr::While(of) => self.condition(&of.cond),
            Expr::Match(of) => self.arms(of),
            Expr::Struct(of) => self.fields(expression, of),
            Expr::Lit(syn::ExprLit { lit: Lit::Bool(value), .. }) => {
                let other = !value.value;
                self.value(expression, vec![(format!("replace {} with {other}", value.value), other.to_string())]);
            }
            _ => {}
        }
        visit::visit_expr(self, expression);
    }

    fn visit_arm(&mut self, arm: &'t syn::Arm) {
        if !is_of_one_build(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_field_value(&mut self, field: &'t syn::FieldValue) {
        if !is_of_one_build(&field.attrs) && field.colon_token.is_some() {
            visit::visit_field_value(self, field);
        }
    }

    /// The length is a constant.
    fn visit_expr_repeat(&mut self, repeat: &'t syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_expr_const(&mut self, _: &'t syn::ExprConst) {}
    fn visit_item_const(&mut self, _: &'t syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'t syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'t syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'t syn::TraitItemConst) {}
    fn visit_variant(&mut self, _: &'t syn::Variant) {}
    fn visit_type(&mut self, _: &'t syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'t syn::GenericArgument) {}
    fn visit_pat(&mut self, _: &'t syn::Pat) {}
    fn visit_attribute(&mut self, _: &'t Attribute) {}
    fn visit_macro(&mut self, _: &'t syn::Macro) {}
}

fn attributes_of(expression: &Expr) -> &[Attribute] {
    match expression {
        Expr::Assign(of) => &of.attrs,
        Expr::Await(of) => &of.attrs,
        Expr::Block(of) => &of.attrs,
        Expr::Call(of) => &of.attrs,
        Expr::ForLoop(of) => &of.attrs,
        Expr::If(of) => &of.attrs,
        Expr::Loop(of) => &of.attrs,
        Expr::Match(of) => &of.attrs,
        Expr::MethodCall(of) => &of.attrs,
        Expr::Return(of) => &of.attrs,
        Expr::Try(of) => &of.attrs,
        Expr::While(of) => &of.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a function body, each mutant as its change and what is changed.
    fn changes(body: &str) -> Vec<String> {
        of(&format!("fn f() -> impl Sized {{ {body} }}"))
    }

    fn of(text: &str) -> Vec<String> {
        let sites = generate("a.rs", text).unwrap().sites;
        let mutants = sites.into_iter().flat_map(|site| site.mutants);
        mutants.map(|mutant| format!("{}: {}", mutant.key.change, mutant.key.text)).collect()
    }

    #[test]
    fn operators_are_swapped_with_brackets_around_what_they_join() {
        assert_eq!(
            changes("a - b < c"),
            [
                "replace < with <=: a - b < c",
                "replace < with >: a - b < c",
                "replace < with ==: a - b < c",
                "replace - with +: a - b",
                "replace - with /: a - b",
            ]
        );
        let sites = generate("a.rs", "fn f() { let x = a - b + c; }").unwrap().sites;
        let instead: Vec<_> = sites[1].mutants.iter().map(|mutant| mutant.instead.as_str()).collect();
        assert_eq!(instead, ["(a - b) - (c)", "(a - b) * (c)"]);
        assert_eq!(
            changes("x += 1; y"),
            ["delete the statement: x += 1;", "replace += with -=: x += 1", "replace += with *=: x += 1"]
        );
    }

    #[test]
    fn conditions_are_negated_once() {
        assert_eq!(changes("if ready() {}"), ["negate the condition: ready()"]);
        assert_eq!(changes("if a == b {}"), ["replace == with !=: a == b"]);
        assert_eq!(changes("while !a {}"), ["delete !: !a"]);
        assert_eq!(changes("if let Some(x) = a && x > 1 {}").len(), 3, "only the comparison");
        assert_eq!(
            changes("if a && !planted!(Bug) {}"),
            ["negate the condition: a && !planted!(Bug)", "replace && with ||: a && !planted!(Bug)"]
        );
    }

    #[test]
    fn arms_go_where_another_takes_what_they_took() {
        assert_eq!(
            changes("match a { A => 1, B if b => 2, _ => 3 }"),
            [
                "delete the arm: A",
                "delete the arm: B",
                "replace the guard with true: b",
                "replace the guard with false: b",
            ]
        );
        assert!(changes("match a { A => 1, B => 2 }").is_empty());
        assert_eq!(changes("match a { A if planted!(X) => 1, B => 2, other => 3 }"), ["delete the arm: B"]);
    }

    #[test]
    fn a_function_answers_at_once_and_a_lone_statement_is_not_left_out_too() {
        assert_eq!(of("fn f(&self) -> bool { self.a }"), ["return true: ", "return false: "]);
        assert_eq!(of("fn f() { g(); }"), ["return (): "]);
        assert_eq!(
            of("fn f() { g(); h(); }"),
            ["return (): ", "delete the statement: g();", "delete the statement: h();"]
        );
        assert_eq!(of("fn f() -> bool { true }"), ["replace true with false: true"]);
        assert!(of("fn f() {}").is_empty());
    }

    #[test]
    fn fields_are_left_to_their_base() {
        assert_eq!(
            changes("let a = A { b: 1, c, ..d };")[..],
            ["delete the field b: A { b: 1, c, ..d }", "delete the field c: A { b: 1, c, ..d }"]
        );
        let sites = generate("a.rs", "fn f() { let a = A { b: 1, c, ..d }; }").unwrap().sites;
        let instead: Vec<_> = sites[1].mutants.iter().map(|mutant| mutant.instead.as_str()).collect();
        assert_eq!(instead, ["A {  c, ..d }", "A { b: 1,  ..d }"]);
    }

    #[test]
    fn what_is_not_the_products_doing_is_left_alone() {
        for text in [
            "#[cfg(test)] mod tests { fn f() -> bool { a == b } }",
            "#[test] fn f() { g(); h(); }",
            "#[cfg(madsim)] fn f() -> bool { a == b }",
            "const A: bool = 1 < 2;",
            "static A: bool = true;",
            "const fn f() -> bool { a == b }",
            "impl std::fmt::Debug for A { fn fmt(&self) -> bool { a } }",
            "fn f() -> impl Sized { #[cfg(madsim)] g(); }",
            "fn f() -> impl Sized { tracing::info!(a == b); sometimes!(Mark); }",
            "fn f() -> impl Sized { self.metrics.ended.inc(); context.metrics.late.set(a - b); }",
            "fn f() -> impl Sized { [0; A + 1] }",
            "fn f() -> impl Sized { let A { b: true, .. } = c else { return; }; }",
        ] {
            assert_eq!(of(text), Vec::<String>::new(), "{text}");
        }
        let generated = generate("a.rs", "#[cfg(test)] mod testing; mod b;").unwrap();
        assert_eq!(generated.not_product, ["testing"]);
    }

    #[test]
    fn a_mutant_is_named_by_where_it_is_and_not_by_its_line() {
        let sites =
            generate("a.rs", "impl A {\n fn f() -> impl Sized {\n  g(a == b);\n  h(a == b);\n  h(a\n  == b)\n }\n}")
                .unwrap()
                .sites;
        let mutants: Vec<_> = sites.iter().flat_map(|site| &site.mutants).filter(|m| m.key.text == "a == b").collect();
        let told: Vec<_> = mutants.iter().map(|m| (m.line, m.key.function.as_str(), m.key.nth)).collect();
        assert_eq!(told, [(3, "A::f", 1), (4, "A::f", 2), (5, "A::f", 3)]);
    }
}
