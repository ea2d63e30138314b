//! Sizes as values: what a reshape or an expansion to symbolic sizes needs.

use pomona_graph::{Dim, DimFactor, ValueId};

use super::{Emit, Writer, int};

impl Writer<'_> {
    /// A list of sizes as an int64 value of rank 1.
    pub(super) fn sizes(&mut self, dims: &[Dim], near: &[ValueId]) -> Emit<String> {
        if let Some(all) = dims.iter().map(Dim::as_int).collect::<Option<Vec<i64>>>() {
            return Ok(self.i64s(&all));
        }
        let parts = dims.iter().map(|d| self.size(d, near)).collect::<Emit<Vec<_>>>()?;
        if let [one] = parts.as_slice() {
            return Ok(one.clone());
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(self.emit("Concat", &parts, "sizes", vec![int("axis", 0)]))
    }

    /// One size as a value of shape [1].
    pub(super) fn size(&mut self, dim: &Dim, near: &[ValueId]) -> Emit<String> {
        if let Some(n) = dim.as_int() {
            return Ok(self.i64s(&[n]));
        }
        if let Some(known) = self.dims.get(dim) {
            return Ok(known.clone());
        }
        let made = match self.axis_of(dim, near) {
            Some((value, axis)) => {
                let ends = vec![int("start", axis as i64), int("end", axis as i64 + 1)];
                self.emit("Shape", &[&value], &format!("size.{dim}"), ends)
            }
            None => self.expression(dim)?,
        };
        self.dims.insert(dim.clone(), made.clone());
        Ok(made)
    }

    /// An axis of this size, of an input of the graph or of a value that the node reads.
    fn axis_of(&self, dim: &Dim, near: &[ValueId]) -> Option<(String, usize)> {
        let ports = self.graph.inputs.iter().map(|p| p.value);
        let all = ports.chain(self.graph.states.iter().map(|s| s.input)).chain(near.iter().copied());
        let mut found =
            all.filter_map(|v| Some((self.values.get(&v)?, self.shape(v).iter().position(|d| d == dim)?)));
        found.next().map(|(name, axis)| (name.clone(), axis))
    }

    /// Sums of products, as `Dim` keeps them.
    fn expression(&mut self, dim: &Dim) -> Emit<String> {
        let mut sum: Option<String> = None;
        let terms: Vec<(Vec<DimFactor>, i64)> = dim.terms();
        if let [(factors, 1)] = terms.as_slice()
            && let [DimFactor::Symbol(name)] = factors.as_slice()
        {
            return Err(format!("needs the size `{name}`, which is no axis of an input"));
        }
        for (factors, number) in terms {
            let mut product = self.i64s(&[number]);
            for factor in factors {
                let value = match factor {
                    DimFactor::Symbol(name) => self.size(&Dim::symbol(name), &[])?,
                    DimFactor::Floor(a, b) => {
                        let (a, b) = (self.size(&a, &[])?, self.size(&b, &[])?);
                        self.emit("Div", &[&a, &b], "size.quotient", vec![])
                    }
                };
                product = self.emit("Mul", &[&product, &value], "size.product", vec![]);
            }
            sum = Some(match sum {
                Some(s) => self.emit("Add", &[&s, &product], "size.sum", vec![]),
                None => product,
            });
        }
        sum.ok_or_else(|| "needs an empty size".to_owned())
    }

    /// The shape argument of a Reshape: 0 where an axis stays, -1 for the only one that is not a number.
    pub(super) fn reshape_to(&mut self, from: &[Dim], to: &[Dim], near: &[ValueId]) -> Emit<String> {
        let mut plain = Vec::with_capacity(to.len());
        let mut open = Vec::new();
        for (i, d) in to.iter().enumerate() {
            match d.as_int() {
                Some(n) => plain.push(n),
                None if from.get(i) == Some(d) => plain.push(0),
                None => {
                    open.push(i);
                    plain.push(-1);
                }
            }
        }
        // An axis of size 0 would read as a copy.
        let zeros = to.iter().any(|d| d.as_int() == Some(0));
        match open.len() {
            0 | 1 if !zeros => Ok(self.i64s(&plain)),
            _ => self.sizes(to, near),
        }
    }

    /// A reshaped value.
    pub(super) fn reshaped(&mut self, x: &str, shape: &[i64], name: &str) -> String {
        let shape = self.i64s(shape);
        self.emit("Reshape", &[x, &shape], name, vec![])
    }
}
