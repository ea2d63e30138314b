//! Einstein sums of one or two operands, as transpositions and one matrix product.

use pomona_graph::{Dim, Op, ReduceFn, Shape, ValueId};

use super::super::context::{Call, Context, Lower, unsupported};

type Letters = Vec<char>;

pub(super) fn einsum(ctx: &mut Context<'_>, c: &Call<'_>) -> Lower<ValueId> {
    let equation: String = c.text("equation").unwrap_or("").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((l, r)) => (l.to_owned(), r.chars().collect::<Letters>()),
        None => {
            let mut once: Letters = equation.chars().filter(|c| *c != ',').collect();
            once.sort_unstable();
            let counted = |l: &char| equation.matches(*l).count() == 1;
            (equation.clone(), once.iter().copied().filter(counted).collect())
        }
    };
    let terms: Vec<Letters> = left.split(',').map(|t| t.chars().collect()).collect();
    let repeated = |t: &Letters| (1..t.len()).any(|i| t[..i].contains(&t[i]));
    if equation.contains('.')
        || terms.len() != c.node.inputs.len()
        || terms.iter().any(repeated)
        || terms.len() > 2
    {
        return unsupported(format!("has the equation `{equation}`"));
    }
    let mut operands = Vec::new();
    for (i, letters) in terms.iter().enumerate() {
        let x = ctx.value(c, i)?;
        if ctx.shape(x).len() != letters.len() {
            return unsupported(format!("has the equation `{equation}` for {} axes", ctx.shape(x).len()));
        }
        // Letters that neither the result nor the other operand has are summed first.
        let kept =
            |l: &char| right.contains(l) || terms.iter().enumerate().any(|(k, t)| k != i && t.contains(l));
        let axes: Vec<usize> = (0..letters.len()).filter(|a| !kept(&letters[*a])).collect();
        let rest: Letters = letters.iter().copied().filter(kept).collect();
        let x = if axes.is_empty() {
            x
        } else {
            ctx.part(&c.path, "sum", Op::Reduce { function: ReduceFn::Sum, axes, keep: false }, &[x])?
        };
        operands.push((x, rest));
    }
    let mut operands = operands.into_iter();
    let Some((x, a)) = operands.next() else { return unsupported("has no operand") };
    let Some((y, b)) = operands.next() else {
        return finish(ctx, c, x, &a, &right);
    };
    let of = |p: &dyn Fn(&char) -> bool, from: &Letters| {
        from.iter().copied().filter(|l| p(l)).collect::<Letters>()
    };
    let batch = of(&|l| b.contains(l) && right.contains(l), &a);
    let inner = of(&|l| b.contains(l) && !right.contains(l), &a);
    let rows = of(&|l| !b.contains(l), &a);
    let columns = of(&|l| !a.contains(l), &b);
    let (xs, ys) = (ctx.shape(x), ctx.shape(y));
    let size = |l: &char| {
        let at = |shape: &Shape, from: &Letters| from.iter().position(|m| m == l).map(|i| shape[i].clone());
        at(&xs, &a).or_else(|| at(&ys, &b)).unwrap_or_else(|| 1.into())
    };
    let product = |letters: &Letters| letters.iter().try_fold(Dim::from(1), |n, l| n.checked_mul(&size(l)));
    let arrange =
        |ctx: &mut Context<'_>, v: ValueId, from: &Letters, parts: [&Letters; 2]| -> Lower<ValueId> {
            let order: Letters = batch.iter().chain(parts[0]).chain(parts[1]).copied().collect();
            let axes = order.iter().filter_map(|l| from.iter().position(|m| m == l)).collect();
            let v = ctx.transposed(&c.path, v, axes)?;
            let mut shape: Shape = batch.iter().map(size).collect();
            shape.extend([product(parts[0])?, product(parts[1])?]);
            ctx.reshape(&c.path, v, shape)
        };
    let x = arrange(ctx, x, &a, [&rows, &inner])?;
    // The second operand is left as it lies where its inner axes come last.
    let last = b.iter().rev().take(inner.len()).all(|l| inner.contains(l)) && !inner.is_empty();
    let y = if last {
        arrange(ctx, y, &b, [&columns, &inner])?
    } else {
        arrange(ctx, y, &b, [&inner, &columns])?
    };
    let z = ctx.part(&c.path, "product", Op::MatMul { transpose_b: last }, &[x, y])?;
    let letters: Letters = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let z = ctx.reshape(&c.path, z, letters.iter().map(size).collect())?;
    finish(ctx, c, z, &letters, &right)
}

fn finish(ctx: &mut Context<'_>, c: &Call<'_>, x: ValueId, from: &Letters, to: &Letters) -> Lower<ValueId> {
    let axes: Option<Vec<usize>> = to.iter().map(|l| from.iter().position(|m| m == l)).collect();
    match axes {
        Some(axes) if axes.len() == from.len() => ctx.transposed(&c.path, x, axes),
        _ => unsupported("gives an axis that no operand has"),
    }
}
