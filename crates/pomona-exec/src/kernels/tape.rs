//! How a kernel meets autograd: one helper for every kernel. It runs over slices on the CPU, and where an input is on a
//! tape its backward step is recorded beside it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, BackendTensor, DType, DispatchKindConversion, Flex, TensorMetadata};
use burn::tensor::{Bytes, Shape};

use crate::burn_types::{AutodiffBackend, B, D, in_order};
use crate::error::Result;
use crate::tensor::Tensor;
use crate::threads::stay_awake;

/// Row-major floats on the CPU. Clones share them.
#[derive(Clone)]
pub(crate) struct Slice(FlexTensor);

impl Slice {
    /// None where the elements are not 32-bit floats.
    fn new(t: &FlexTensor) -> Option<Slice> {
        if t.dtype() != DType::F32 {
            return None;
        }
        let layout = t.layout();
        let one = layout.strides().iter().zip(t.shape().iter()).all(|(s, d)| *s == 0 || *d == 1);
        if one && layout.num_elements() > 1 {
            // The gradient of a sum is one number in every place. Burn would walk it index by index.
            let value = *t.storage::<f32>().get(layout.start_offset())?;
            return Some(Slice(flex(vec![value; layout.num_elements()], t.shape())));
        }
        Some(Slice(in_order(t.clone())))
    }
}

impl Deref for Slice {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        self.0.as_slice::<f32>().unwrap_or_default()
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn flex(values: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape), DType::F32)
}

/// From the gradient of the output and which inputs need one to the gradients of the inputs, in their shapes.
pub(crate) type Step = Arc<dyn Fn(&[f32], &[bool]) -> Vec<Option<Vec<f32>>> + Send + Sync>;

/// Makes a [`Step`].
pub(crate) fn step(f: impl Fn(&[f32], &[bool]) -> Vec<Option<Vec<f32>>> + Send + Sync + 'static) -> Step {
    Arc::new(f)
}

/// What a recorded step keeps.
#[derive(Clone)]
struct Kept {
    step: Step,
    shapes: Vec<Shape>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("shapes", &self.shapes).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Kernel;

impl<const N: usize> Backward<Flex, N> for Kernel {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let above = grads.consume::<Flex>(&ops.node);
        let Some(above) = Slice::new(&above) else { return };
        // Burn leaves out the parents that need no gradient.
        let need: Vec<bool> = ops.parents.iter().map(Option::is_some).collect();
        stay_awake(above.len());
        let found = (ops.state.step)(&above, &need);
        for ((parent, gradient), shape) in ops.parents.into_iter().zip(found).zip(ops.state.shapes) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                let id: NodeId = parent.id;
                grads.register::<Flex>(id, flex(gradient, shape));
            }
        }
    }
}

type Taped = FloatTensor<Autodiff<Flex>>;

fn plain(d: D) -> Option<FlexTensor> {
    match <D as DispatchKindConversion<Flex>>::try_into_backend(d).ok()? {
        BackendTensor::Float(t) => Some(t),
        _ => None,
    }
}

fn taped(d: D) -> Option<Taped> {
    match <D as DispatchKindConversion<Autodiff<Flex>>>::try_into_backend(d).ok()? {
        BackendTensor::Float(t) => Some(t),
        _ => None,
    }
}

/// Runs a kernel on tensors of floats: `forward` gives the output and the step back. None where an input is on another
/// device than the CPU.
pub(crate) fn record(
    inputs: &[&Tensor],
    shape: &[usize],
    forward: impl FnOnce(&[Slice]) -> (Vec<f32>, Step),
) -> Result<Option<Tensor>> {
    record_sharing(inputs, shape, |slices| {
        let (values, step) = forward(slices);
        (values, move |_| step)
    })
}

/// As [`record`] for a step that reads the output too: it is made from a slice that shares it, and only where there is a tape.
pub(crate) fn record_sharing<F: FnOnce(Slice) -> Step>(
    inputs: &[&Tensor],
    shape: &[usize],
    forward: impl FnOnce(&[Slice]) -> (Vec<f32>, F),
) -> Result<Option<Tensor>> {
    let Some(device) = inputs.first().map(|t| t.device().clone()) else { return Ok(None) };
    let shape = Shape::from(shape.to_vec());
    let tensors = inputs.iter().map(|t| t.as_float()).collect::<Result<Vec<D>>>()?;
    if !inputs.iter().any(|t| t.is_taped()) {
        let slices: Option<Vec<Slice>> =
            tensors.into_iter().map(|d| plain(d).as_ref().and_then(Slice::new)).collect();
        let Some(slices) = slices else { return Ok(None) };
        let (values, _) = forward(&slices);
        let out = BackendTensor::Float(flex(values, shape));
        let out = <D as DispatchKindConversion<Flex>>::from_backend(out);
        return Ok(Some(Tensor::float(out, &device)));
    }
    let lift = |(t, d): (&&Tensor, D)| taped(if t.is_taped() { d } else { B::from_inner(d) });
    let Some(tensors) = inputs.iter().zip(tensors).map(lift).collect::<Option<Vec<Taped>>>() else {
        return Ok(None);
    };
    let out = match tensors.len() {
        1 => record_n::<1, _>(tensors, shape, forward),
        2 => record_n::<2, _>(tensors, shape, forward),
        3 => record_n::<3, _>(tensors, shape, forward),
        4 => record_n::<4, _>(tensors, shape, forward),
        5 => record_n::<5, _>(tensors, shape, forward),
        _ => None,
    };
    Ok(out.map(|t| {
        let out = <D as DispatchKindConversion<Autodiff<Flex>>>::from_backend(BackendTensor::Float(t));
        Tensor::float(out, &device)
    }))
}

/// Hands a gradient to a tensor as it is: the elements are shared, not copied.
#[derive(Debug)]
struct Seed;

impl Backward<Flex, 1> for Seed {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        drop(grads.consume::<Flex>(&ops.node));
        for parent in ops.parents.into_iter().flatten() {
            grads.register::<Flex>(parent.id, ops.state.clone());
        }
    }
}

/// A number whose gradient for `out` is `above`. Its value is never worked out: nobody reads it. None on another device than the
/// CPU, and where `out` is on no tape.
pub(crate) fn seed(out: &Tensor, above: &Tensor) -> Result<Option<Tensor>> {
    let both = (taped(out.as_float()?), plain(above.as_float()?));
    let (Some(to), Some(above)) = both else { return Ok(None) };
    let zero = flex(vec![0.0], Shape::new([1]));
    let OpsKind::Tracked(prep) = Seed.prepare::<NoCheckpointing>([to.node()]).compute_bound().stateful()
    else {
        return Ok(None);
    };
    let loss = BackendTensor::Float(prep.finish(above, zero));
    let loss = <D as DispatchKindConversion<Autodiff<Flex>>>::from_backend(loss);
    Ok(Some(Tensor::float(loss, out.device())))
}

fn record_n<const N: usize, F: FnOnce(Slice) -> Step>(
    tensors: Vec<Taped>,
    shape: Shape,
    forward: impl FnOnce(&[Slice]) -> (Vec<f32>, F),
) -> Option<Taped> {
    let tensors: [Taped; N] = tensors.try_into().ok()?;
    let slices: Option<Vec<Slice>> = tensors.iter().map(|t| Slice::new(t.primitive())).collect();
    let shapes = tensors.iter().map(|t| t.primitive().shape()).collect();
    let nodes = tensors.each_ref().map(|t| t.node());
    let (values, step) = forward(&slices?);
    let out = flex(values, shape);
    // Blocks are recomputed as wholes by whoever runs the graph; single kernels keep what they read.
    Some(match Kernel.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish(Kept { step: step(Slice(out.clone())), shapes }, out),
        OpsKind::UnTracked(prep) => prep.finish(out),
    })
}
