use super::*;
use tch::{Device, Kind};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Parameters of different shapes whose gradients are `grads(i)` times themselves: loss = ½ Σ cᵢ pᵢ².
fn params() -> Vec<Tensor> {
    tch::manual_seed(1);
    [vec![3, 2], vec![5], vec![2, 3, 4, 4]]
        .iter()
        .map(|shape| Tensor::randn(shape, F64).set_requires_grad(true))
        .collect()
}

fn backward(params: &[Tensor]) {
    let loss: Tensor =
        params.iter().enumerate().map(|(i, p)| (p * p).sum(Kind::Double) * (0.5 * (i as f64 + 1.0))).sum();
    loss.backward();
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().contiguous().view(-1)).unwrap()
}

fn zeros_like(params: &[Tensor]) -> Vec<Tensor> {
    params.iter().map(|p| p.detach().zeros_like()).collect()
}

fn close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} != {b}");
    }
}

#[test]
fn sgd_is_its_formula() {
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let tensors = params();
        let list = TensorList::new(&tensors).unwrap();
        let buffers = (momentum != 0.0).then(|| TensorList::new(&zeros_like(&tensors)).unwrap());
        let (lr, weight_decay) = (0.05, 0.01);
        let mut plain: Vec<Vec<f64>> = tensors.iter().map(numbers).collect();
        let mut memory: Vec<Vec<f64>> = plain.iter().map(|p| vec![0.0; p.len()]).collect();
        for _ in 0..4 {
            list.clear_grads();
            backward(&tensors);
            list.fused_sgd(buffers.as_ref(), &Tensor::from(lr), Sgd { momentum, weight_decay, nesterov }).unwrap();
            for (i, (p, b)) in plain.iter_mut().zip(&mut memory).enumerate() {
                for (p, b) in p.iter_mut().zip(b) {
                    let g = (i as f64 + 1.0) * *p + weight_decay * *p;
                    *b = momentum * *b + g;
                    *p -= lr * if nesterov { g + momentum * *b } else { *b };
                }
            }
        }
        for (tensor, plain) in tensors.iter().zip(&plain) {
            close(&numbers(tensor), plain);
        }
    }
}

#[test]
fn adamw_is_its_formula_and_counts_steps() {
    let tensors = params();
    let list = TensorList::new(&tensors).unwrap();
    let (m, v) = (TensorList::new(&zeros_like(&tensors)).unwrap(), TensorList::new(&zeros_like(&tensors)).unwrap());
    let counts: Vec<Tensor> = tensors.iter().map(|_| Tensor::zeros([], (Kind::Float, Device::Cpu))).collect();
    let steps = TensorList::new(&counts).unwrap();
    let adamw = Adamw { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    let lr = 0.02;
    let mut plain: Vec<Vec<f64>> = tensors.iter().map(numbers).collect();
    let mut moments: Vec<Vec<(f64, f64)>> = plain.iter().map(|p| vec![(0.0, 0.0); p.len()]).collect();
    for t in 1..=4 {
        list.clear_grads();
        backward(&tensors);
        list.fused_adamw(&m, &v, &steps, &Tensor::from(lr), adamw).unwrap();
        for (i, (p, mv)) in plain.iter_mut().zip(&mut moments).enumerate() {
            for (p, (m, v)) in p.iter_mut().zip(mv) {
                let g = (i as f64 + 1.0) * *p;
                *p *= 1.0 - lr * adamw.weight_decay;
                *m = adamw.beta1 * *m + (1.0 - adamw.beta1) * g;
                *v = adamw.beta2 * *v + (1.0 - adamw.beta2) * g * g;
                let (m_hat, v_hat) = (*m / (1.0 - adamw.beta1.powi(t)), *v / (1.0 - adamw.beta2.powi(t)));
                *p -= lr * m_hat / (v_hat.sqrt() + adamw.eps);
            }
        }
    }
    for (tensor, plain) in tensors.iter().zip(&plain) {
        close(&numbers(tensor), plain);
    }
    assert!(counts.iter().all(|count| count.double_value(&[]) == 4.0));
}

#[test]
fn parameters_without_gradient_stay_as_they_are() {
    let tensors = params();
    let list = TensorList::new(&tensors).unwrap();
    let before = numbers(&tensors[1]);
    (&tensors[0] * 2.0).sum(Kind::Double).backward();
    let buffers = TensorList::new(&zeros_like(&tensors)).unwrap();
    let moved = numbers(&tensors[0]);
    list.fused_sgd(Some(&buffers), &Tensor::from(0.1), Sgd { momentum: 0.9, weight_decay: 0.5, nesterov: false })
        .unwrap();
    assert_eq!(numbers(&tensors[1]), before);
    assert_ne!(numbers(&tensors[0]), moved);
    list.clear_grads();
    assert!(!tensors[0].grad().defined());
}

#[test]
fn gradients_and_weights_may_differ_in_memory_format() {
    // The kernels walk memory, not indices: a channels-last weight with a plain gradient would be scrambled if nothing looked.
    let weight = Tensor::randn([4, 3, 2, 2], F64);
    let weight = crate::channels_last(&weight).unwrap().set_requires_grad(true);
    let expected = weight.detach() - Tensor::arange(48, F64).view([4, 3, 2, 2]) * 0.1;
    (&weight * Tensor::arange(48, F64).view([4, 3, 2, 2])).sum(Kind::Double).backward();
    let list = TensorList::new(&[&weight]).unwrap();
    list.fused_sgd(None, &Tensor::from(0.1), Sgd { momentum: 0.0, weight_decay: 0.0, nesterov: false }).unwrap();
    close(&numbers(&weight), &numbers(&expected));

    let plain = TensorList::new(&[Tensor::zeros([4, 3, 2, 2], F64)]).unwrap();
    let sgd = Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let error = list.fused_sgd(Some(&plain), &Tensor::from(0.1), sgd).unwrap_err();
    assert!(error.to_string().contains("memory format"), "{error}");
}

#[test]
fn mismatched_state_is_an_error_of_one_line() {
    let tensors = params();
    backward(&tensors);
    let list = TensorList::new(&tensors).unwrap();
    let lr = Tensor::from(0.1);
    let sgd = Sgd { momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let before: Vec<_> = tensors.iter().map(numbers).collect();

    let short = TensorList::new(&zeros_like(&tensors[..2])).unwrap();
    let error = list.fused_sgd(Some(&short), &lr, sgd).unwrap_err().to_string();
    assert!(error.contains("state for 2 tensors, but there are 3"), "{error}");

    let mut wrong = zeros_like(&tensors);
    wrong[1] = Tensor::zeros([4], F64);
    let wrong = TensorList::new(&wrong).unwrap();
    for error in [
        list.fused_sgd(Some(&wrong), &lr, sgd).unwrap_err(),
        list.foreach_addcmul_grads(&wrong, 1.0).unwrap_err(),
        list.foreach_lerp(&wrong, 0.5).unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.contains("[4]") && error.contains("[5]"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
    assert!(list.fused_sgd(None, &lr, sgd).is_err());
    assert!(list.foreach_lerp(&short, 0.5).is_err());
    assert!(list.fused_sgd(None, &Tensor::zeros([2], F64), Sgd { momentum: 0.0, ..sgd }).is_err());
    assert_eq!(tensors.iter().map(numbers).collect::<Vec<_>>(), before);
}

#[test]
fn lerp_and_addcmul_are_their_formulas() {
    let tensors = params();
    backward(&tensors);
    let list = TensorList::new(&tensors).unwrap();
    let before: Vec<_> = tensors.iter().map(numbers).collect();

    let averages = zeros_like(&tensors);
    TensorList::new(&averages).unwrap().foreach_lerp(&list, 0.25).unwrap();
    for (average, before) in averages.iter().zip(&before) {
        close(&numbers(average), &before.iter().map(|p| 0.25 * p).collect::<Vec<_>>());
    }

    let factors: Vec<_> = tensors.iter().map(|p| p.detach().abs()).collect();
    list.foreach_addcmul_grads(&TensorList::new(&factors).unwrap(), -0.5).unwrap();
    for (i, (tensor, before)) in tensors.iter().zip(&before).enumerate() {
        close(&numbers(tensor), &before.iter().map(|p| p - 0.5 * (i as f64 + 1.0) * p * p.abs()).collect::<Vec<_>>());
    }
}

#[test]
fn norm_and_scaling_are_over_all_gradients() {
    let tensors = params();
    let list = TensorList::new(&tensors).unwrap();
    assert_eq!(list.grad_norm().unwrap().double_value(&[]), 0.0);
    backward(&tensors);
    let squares: f64 = tensors.iter().flat_map(|p| numbers(&p.grad())).map(|g| g * g).sum();
    close(&[list.grad_norm().unwrap().double_value(&[])], &[squares.sqrt()]);
    let before = numbers(&tensors[2].grad());
    list.scale_grads(&Tensor::from(0.5)).unwrap();
    assert_eq!(numbers(&tensors[2].grad()), before.iter().map(|g| 0.5 * g).collect::<Vec<_>>());
    assert!(list.scale_grads(&Tensor::zeros([2], F64)).is_err());
}

#[test]
fn the_list_outlives_its_tensors() {
    let average = Tensor::zeros([2], F64);
    let list = TensorList::new(&[Tensor::ones([2], F64)]).unwrap();
    TensorList::new(&[&average]).unwrap().foreach_lerp(&list, 1.0).unwrap();
    assert_eq!(numbers(&average), [1.0, 1.0]);
}
