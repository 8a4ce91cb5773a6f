//! What is put in place of what: the operators of cargo-mutants, and boundaries off by one.

use syn::{BinOp, Expr, GenericArgument, PathArguments, ReturnType, Stmt, Type, UnOp};

/// At most so many values of a tuple are tried.
const MOST_VALUES: usize = 4;

/// What an operator is replaced with, as it is written.
pub fn swapped(op: &BinOp) -> &'static [&'static str] {
    match op {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">", "=="],
        BinOp::Gt(_) => &[">=", "<", "=="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-", "*"],
        BinOp::Sub(_) => &["+", "/"],
        BinOp::Mul(_) => &["+", "/"],
        BinOp::Div(_) => &["%", "*"],
        BinOp::Rem(_) => &["/", "+"],
        BinOp::Shl(_) => &[">>"],
        BinOp::Shr(_) => &["<<"],
        BinOp::BitAnd(_) => &["|", "^"],
        BinOp::BitOr(_) => &["&", "^"],
        BinOp::BitXor(_) => &["&", "|"],
        BinOp::AddAssign(_) => &["-=", "*="],
        BinOp::SubAssign(_) => &["+=", "/="],
        BinOp::MulAssign(_) => &["+=", "/="],
        BinOp::DivAssign(_) => &["%=", "*="],
        BinOp::RemAssign(_) => &["/=", "+="],
        BinOp::ShlAssign(_) => &[">>="],
        BinOp::ShrAssign(_) => &["<<="],
        BinOp::BitAndAssign(_) => &["|=", "^="],
        BinOp::BitOrAssign(_) => &["&=", "^="],
        BinOp::BitXorAssign(_) => &["&=", "|="],
        _ => &[],
    }
}

/// A comparison is negated, or nearly, by what its operator is replaced with.
pub fn is_comparison(op: &BinOp) -> bool {
    matches!(op, BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_))
}

pub fn is_assignment(op: &BinOp) -> bool {
    matches!(
        op,
        BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::BitXorAssign(_)
    )
}

/// What a function may answer without doing anything. Those that are not of its type do not compile, and go.
pub fn answers(output: &ReturnType) -> Vec<String> {
    match output {
        ReturnType::Default => vec!["()".into()],
        ReturnType::Type(_, of) => values(of),
    }
}

fn values(of: &Type) -> Vec<String> {
    match of {
        Type::Path(path) => path.path.segments.last().map_or_else(Vec::new, named),
        Type::Tuple(tuple) => tuples(&tuple.elems.iter().map(values).collect::<Vec<_>>()),
        Type::Reference(reference) if reference.mutability.is_none() => match &*reference.elem {
            Type::Path(path) if path.path.is_ident("str") => words(&[r#""""#, r#""xyzzy""#]),
            Type::Slice(_) => words(&["&[]"]),
            of => values(of).into_iter().map(|value| format!("Box::leak(Box::new({value}))")).collect(),
        },
        Type::Paren(paren) => values(&paren.elem),
        Type::Array(_) => words(&["Default::default()"]),
        _ => Vec::new(),
    }
}

fn named(segment: &syn::PathSegment) -> Vec<String> {
    let of = || match &segment.arguments {
        PathArguments::AngleBracketed(arguments) => arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::Type(of) => Some(values(of)),
            _ => None,
        }),
        _ => None,
    };
    let name = segment.ident.to_string();
    let within = |around: &dyn Fn(&str) -> String| {
        let values = of().unwrap_or_else(|| words(&["Default::default()"]));
        values.iter().map(|value| around(value)).collect::<Vec<_>>()
    };
    match name.as_str() {
        "bool" => words(&["true", "false"]),
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => words(&["0", "1"]),
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => words(&["0", "1", "-1"]),
        "f32" | "f64" => words(&["0.0", "1.0", "-1.0"]),
        "String" => words(&["String::new()", r#""xyzzy".into()"#]),
        "Option" => [vec!["None".into()], within(&|value| format!("Some({value})"))].concat(),
        // `Answer` is what a handler of `apply` returns.
        name if name.ends_with("Result") || name == "Answer" => within(&|value| format!("Ok({value})")),
        "Vec" => [vec!["Vec::new()".into()], within(&|value| format!("vec![{value}]"))].concat(),
        "Box" | "Arc" | "Rc" | "Cell" | "RefCell" | "Mutex" => within(&|value| format!("{name}::new({value})")),
        _ => words(&["Default::default()"]),
    }
}

fn tuples(parts: &[Vec<String>]) -> Vec<String> {
    let mut made = vec![String::new()];
    for values in parts {
        made = made.iter().flat_map(|made| values.iter().map(move |value| format!("{made}{value}, "))).collect();
        made.truncate(MOST_VALUES);
    }
    made.iter().map(|made| format!("({})", made.trim_end())).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Whether a statement is a call or an assignment, which can be left out.
pub fn is_deletable(statement: &Stmt) -> bool {
    let Stmt::Expr(expression, Some(_)) = statement else { return false };
    let mut inner = expression;
    loop {
        inner = match inner {
            Expr::Try(of) => &of.expr,
            Expr::Await(of) => &of.base,
            Expr::Binary(of) => return is_assignment(&of.op),
            Expr::Call(of) => return of.attrs.is_empty(),
            Expr::MethodCall(of) => return of.attrs.is_empty(),
            Expr::Assign(of) => return of.attrs.is_empty(),
            _ => return false,
        };
    }
}

/// Whether a condition binds names (`if let`), and so is more than a value.
pub fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) => matches!(binary.op, BinOp::And(_)) && (binds(&binary.left) || binds(&binary.right)),
        _ => false,
    }
}

/// Whether an expression is a macro, or not one: sabotages, mostly, which are no part of the product.
pub fn is_macro(expression: &Expr) -> bool {
    match expression {
        Expr::Macro(_) => true,
        Expr::Unary(unary) => matches!(unary.op, UnOp::Not(_)) && is_macro(&unary.expr),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &str) -> Vec<String> {
        answers(&syn::parse_str(output).unwrap())
    }

    #[test]
    fn a_function_answers_values_of_its_type() {
        assert_eq!(of(""), ["()"]);
        assert_eq!(of("-> bool"), ["true", "false"]);
        assert_eq!(of("-> Result<bool, Error>"), ["Ok(true)", "Ok(false)"]);
        assert_eq!(of("-> Answer"), ["Ok(Default::default())"]);
        assert_eq!(of("-> StoreResult<()>"), ["Ok(())"]);
        assert_eq!(of("-> Option<u32>"), ["None", "Some(0)", "Some(1)"]);
        assert_eq!(of("-> (bool, Timestamp)"), ["(true, Default::default(),)", "(false, Default::default(),)"]);
        assert_eq!(of("-> Vec<String>"), ["Vec::new()", "vec![String::new()]", r#"vec!["xyzzy".into()]"#]);
        assert_eq!(of("-> &str"), [r#""""#, r#""xyzzy""#]);
        assert!(of("-> impl Iterator<Item = u8>").is_empty() && of("-> &mut u8").is_empty() && of("-> !").is_empty());
    }

    #[test]
    fn calls_and_assignments_can_be_left_out() {
        let block: syn::Block =
            syn::parse_str("{ f(); a.b()?; a.b().await?; x = 1; x += 1; return; x + 1; let y = 1; m!(); if a {} f() }")
                .unwrap();
        let deletable: Vec<bool> = block.stmts.iter().map(is_deletable).collect();
        assert_eq!(deletable, [true, true, true, true, true, false, false, false, false, false, false]);
    }
}
