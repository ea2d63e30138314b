//! Convolutions, pooling, resampling.

use pomona_graph::{ConvAttrs, Dim, Op, PoolKind, ResizeCoordinates, ResizeMode, Slot};
use pomona_store::onnx::OnnxAttribute;

use super::{Emit, Node, Writer, float, int, ints, text};

fn pads(padding: &[[usize; 2]]) -> OnnxAttribute {
    ints("pads", padding.iter().map(|p| p[0]).chain(padding.iter().map(|p| p[1])))
}

fn conv_attributes(attrs: &ConvAttrs, kernel: &[usize]) -> Vec<OnnxAttribute> {
    vec![
        ints("kernel_shape", kernel.iter().copied()),
        ints("strides", attrs.stride.iter().copied()),
        pads(&attrs.padding),
        ints("dilations", attrs.dilation.iter().copied()),
        int("group", attrs.groups as i64),
    ]
}

impl Writer<'_> {
    pub(super) fn spatial(&mut self, node: &Node) -> Emit<()> {
        let x = self.input(node, 0)?;
        match &node.op {
            Op::Conv(attrs) | Op::ConvTranspose { conv: attrs, .. } => {
                let w = self.need(node, Slot::Weight)?;
                let b = self.slot(node, Slot::Bias)?.unwrap_or_default();
                let id = node.weights.get(&Slot::Weight).copied().ok_or("has no weight")?;
                let mut attributes = conv_attributes(attrs, &self.graph.tensor(id).shape[2..]);
                let op = if let Op::ConvTranspose { output_padding, .. } = &node.op {
                    attributes.push(ints("output_padding", output_padding.iter().copied()));
                    "ConvTranspose"
                } else {
                    "Conv"
                };
                self.finish(node, op, &[&x, &w, &b], attributes);
            }
            Op::Pool { kind, kernel, stride, padding, ceil, count_padding } => {
                let mut attributes = vec![
                    ints("kernel_shape", kernel.iter().copied()),
                    ints("strides", stride.iter().copied()),
                    pads(padding),
                    int("ceil_mode", i64::from(*ceil)),
                ];
                let op = if *kind == PoolKind::Max {
                    "MaxPool"
                } else {
                    attributes.push(int("count_include_pad", i64::from(*count_padding)));
                    "AveragePool"
                };
                self.finish(node, op, &[&x], attributes);
            }
            Op::AdaptivePool { kind, size } => {
                let average = *kind == PoolKind::Average;
                if size.iter().all(|s| *s == 1) {
                    self.finish(
                        node,
                        if average { "GlobalAveragePool" } else { "GlobalMaxPool" },
                        &[&x],
                        vec![],
                    );
                    return Ok(());
                }
                let from = &self.shape(node.inputs[0])[2..];
                let step = |(d, to): (&Dim, &usize)| {
                    let n = usize::try_from(d.as_int()?).ok()?;
                    (*to > 0 && n % to == 0).then(|| n / to)
                };
                let kernel: Option<Vec<usize>> = from.iter().zip(size).map(step).collect();
                let kernel = kernel.ok_or_else(|| {
                    format!(
                        "pools {} to {size:?}: ONNX has no windows of unequal sizes",
                        pomona_graph::show_shape(from)
                    )
                })?;
                let attributes = vec![ints("kernel_shape", kernel.iter().copied()), ints("strides", kernel)];
                self.finish(node, if average { "AveragePool" } else { "MaxPool" }, &[&x], attributes);
            }
            Op::Resize { mode, coordinates, .. } => self.resize(node, &x, *mode, *coordinates)?,
            Op::PixelShuffle { factor, inverse: false } => {
                let attributes = vec![int("blocksize", *factor as i64), text("mode", "CRD")];
                self.finish(node, "DepthToSpace", &[&x], attributes);
            }
            Op::PixelShuffle { factor, .. } => {
                let s = self.shape(node.inputs[0]);
                let r = Dim::from(*factor);
                let cut = |d: &Dim| d.exact_div(&r).map_err(|e| e.to_string());
                let split = vec![s[0].clone(), s[1].clone(), cut(&s[2])?, r.clone(), cut(&s[3])?, r.clone()];
                let shape = self.reshape_to(s, &split, &node.inputs)?;
                let p = &node.path;
                let y = self.emit("Reshape", &[&x, &shape], &format!("{p}.split"), vec![]);
                let y = self.emit(
                    "Transpose",
                    &[&y],
                    &format!("{p}.order"),
                    vec![ints("perm", [0, 1, 3, 5, 2, 4])],
                );
                let shape = self.reshape_to(&s[..1], self.shape(node.outputs[0]), &node.inputs)?;
                self.finish(node, "Reshape", &[&y, &shape], vec![]);
            }
            _ => return Err("is no spatial operator".to_owned()),
        }
        Ok(())
    }

    fn resize(&mut self, node: &Node, x: &str, mode: ResizeMode, coordinates: ResizeCoordinates) -> Emit<()> {
        let from = self.shape(node.inputs[0]);
        let to = self.shape(node.outputs[0]);
        let mut attributes = vec![text(
            "coordinate_transformation_mode",
            match coordinates {
                ResizeCoordinates::Asymmetric => "asymmetric",
                ResizeCoordinates::HalfPixel => "half_pixel",
                ResizeCoordinates::AlignCorners => "align_corners",
            },
        )];
        match mode {
            ResizeMode::Nearest => {
                let rounding =
                    if coordinates == ResizeCoordinates::Asymmetric { "floor" } else { "round_prefer_floor" };
                attributes.extend([text("mode", "nearest"), text("nearest_mode", rounding)]);
            }
            ResizeMode::Linear => attributes.push(text("mode", "linear")),
            ResizeMode::Cubic => attributes.extend([text("mode", "cubic"), float("cubic_coeff_a", -0.75)]),
        }
        // Whole factors are scales, which need no sizes.
        let factor = |(a, b): (&Dim, &Dim)| {
            let f = b.exact_div(a).ok()?.as_int().filter(|f| a.clone() * *f == *b)?;
            Some(f as f32)
        };
        let factors: Option<Vec<f32>> = from.iter().zip(to).map(factor).collect();
        if let Some(f) = factors {
            let scales = self.floats(&format!("{}.scales", node.path), &[f.len()], &f);
            self.finish(node, "Resize", &[x, "", &scales], attributes);
            return Ok(());
        }
        let sizes = self.sizes(to, &node.inputs)?;
        self.finish(node, "Resize", &[x, "", "", &sizes], attributes);
        Ok(())
    }
}
