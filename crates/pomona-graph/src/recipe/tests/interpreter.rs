//! A plain interpreter of recipe expressions on small integer tensors.
//!
//! Types are modelled by what makes them differ: `f16` holds multiples of 2, `bf16` multiples of 3, everything else any
//! integer; casts round down to them.

use super::super::{Expr, SourceTensor};

#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<i64>,
}

pub fn round_to(dtype: &str, v: i64) -> i64 {
    match dtype {
        "f16" => v.div_euclid(2) * 2,
        "bf16" => v.div_euclid(3) * 3,
        _ => v,
    }
}

/// Source `name` with distinct elements that its type can hold.
pub fn source(name: &str, tensor: &SourceTensor) -> Array {
    let base = name.bytes().map(i64::from).sum::<i64>() * 1000;
    let n: usize = tensor.shape.iter().product();
    let dtype = tensor.dtype.as_deref().unwrap_or("f32");
    let data = (0..n as i64).map(|i| round_to(dtype, base + 7 * i)).collect();
    Array { shape: tensor.shape.clone(), data }
}

impl Array {
    fn build(shape: Vec<usize>, at: impl Fn(&[usize]) -> i64) -> Array {
        let n: usize = shape.iter().product();
        let mut index = vec![0; shape.len()];
        let mut data = Vec::with_capacity(n);
        for _ in 0..n {
            data.push(at(&index));
            for a in (0..shape.len()).rev() {
                index[a] += 1;
                if index[a] < shape[a] {
                    break;
                }
                index[a] = 0;
            }
        }
        Array { shape, data }
    }

    fn get(&self, index: &[usize]) -> i64 {
        self.data[index.iter().zip(&self.shape).fold(0, |n, (i, d)| n * d + i)]
    }

    fn pick(&self, axis: usize, indices: &[usize]) -> Array {
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        Array::build(shape, |at| {
            let mut at = at.to_vec();
            at[axis] = indices[at[axis]];
            self.get(&at)
        })
    }
}

pub fn evaluate(expr: &Expr, get: &dyn Fn(&str) -> Array) -> Array {
    match expr {
        Expr::Copy { name } => get(name),
        Expr::Gather { axis, indices, of } => {
            let indices: Vec<usize> = indices.iter().map(|i| *i as usize).collect();
            evaluate(of, get).pick(*axis, &indices)
        }
        Expr::Split { axis, start, len, of } => {
            evaluate(of, get).pick(*axis, &(*start..start + len).collect::<Vec<_>>())
        }
        Expr::Concat { axis, of } => {
            let parts: Vec<Array> = of.iter().map(|e| evaluate(e, get)).collect();
            let mut shape = parts[0].shape.clone();
            shape[*axis] = parts.iter().map(|p| p.shape[*axis]).sum();
            Array::build(shape, |at| {
                let mut at = at.to_vec();
                for part in &parts {
                    if at[*axis] < part.shape[*axis] {
                        return part.get(&at);
                    }
                    at[*axis] -= part.shape[*axis];
                }
                unreachable!("index inside the sum of the parts")
            })
        }
        Expr::Transpose { axes, of } => {
            let a = evaluate(of, get);
            Array::build(axes.iter().map(|x| a.shape[*x]).collect(), |at| {
                let mut from = vec![0; at.len()];
                axes.iter().zip(at).for_each(|(x, i)| from[*x] = *i);
                a.get(&from)
            })
        }
        Expr::Reshape { shape, of } => Array { shape: shape.clone(), data: evaluate(of, get).data },
        Expr::Cast { dtype, of } => {
            let mut a = evaluate(of, get);
            a.data.iter_mut().for_each(|v| *v = round_to(dtype, *v));
            a
        }
        Expr::Decode { of } => evaluate(of, get),
        Expr::Tile { repeats, of } => {
            let a = evaluate(of, get);
            let shape = a.shape.iter().zip(repeats).map(|(d, r)| d * r).collect();
            Array::build(shape, |at| a.get(&at.iter().zip(&a.shape).map(|(i, d)| i % d).collect::<Vec<_>>()))
        }
        Expr::WeightedSum { terms } => {
            let mut sum: Option<Array> = None;
            for term in terms {
                let mut factors = term.product.iter().map(|e| evaluate(e, get));
                let mut product = factors.next().expect("a factor");
                for f in factors {
                    let (p, inner) = (product, f.shape[0]);
                    product = Array::build(vec![p.shape[0], f.shape[1]], |at| {
                        (0..inner).map(|k| p.get(&[at[0], k]) * f.get(&[k, at[1]])).sum()
                    });
                }
                product.data.iter_mut().for_each(|v| *v *= term.weight as i64);
                match &mut sum {
                    Some(s) => s.data.iter_mut().zip(&product.data).for_each(|(s, p)| *s += p),
                    None => sum = Some(product),
                }
            }
            sum.expect("a term")
        }
        Expr::Literal { values, shape } => {
            Array { shape: shape.clone(), data: values.iter().map(|v| *v as i64).collect() }
        }
        Expr::Initialise { shape, seed, .. } => {
            Array::build(shape.clone(), |at| at.iter().fold(*seed as i64, |n, i| n * 31 + *i as i64))
        }
    }
}
