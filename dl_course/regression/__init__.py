"""Linear, ridge, lasso, logistic, softmax regression, the multiclass SVM, seven solvers  (I2DL 02 and 06; LUE2;
BONN 4–6).

`linear`: the network. `closed_form`: answers without a learning rate. `descent`: the loops of the lectures.
`solvers`: linear systems A x = b.
"""

from dl_course.regression.closed_form import (
    LinearFit,
    add_bias,
    lasso,
    least_squares,
    least_squares_gradient,
    ridge,
    soft_threshold,
    standard_errors,
)
from dl_course.regression.descent import (
    Trajectory,
    gradient_descent,
    hinge_gradient,
    hinge_loss,
    linear_gradient,
    linear_loss,
    logistic_gradient,
    logistic_loss,
    minibatch_descent,
    softmax_gradient,
    softmax_loss,
    stochastic_descent,
)
from dl_course.regression.linear import Linear
from dl_course.regression.solvers import (
    Iteration,
    NotConverged,
    cholesky,
    cholesky_solve,
    conjugate_gradient,
    gauss_seidel,
    jacobi,
    lu,
    lu_solve,
    preconditioned_conjugate_gradient,
    qr,
    qr_solve,
)

__all__ = [
    "Iteration",
    "Linear",
    "LinearFit",
    "NotConverged",
    "Trajectory",
    "add_bias",
    "cholesky",
    "cholesky_solve",
    "conjugate_gradient",
    "gauss_seidel",
    "gradient_descent",
    "hinge_gradient",
    "hinge_loss",
    "jacobi",
    "lasso",
    "least_squares",
    "least_squares_gradient",
    "linear_gradient",
    "linear_loss",
    "logistic_gradient",
    "logistic_loss",
    "lu",
    "lu_solve",
    "minibatch_descent",
    "preconditioned_conjugate_gradient",
    "qr",
    "qr_solve",
    "ridge",
    "soft_threshold",
    "softmax_gradient",
    "softmax_loss",
    "standard_errors",
    "stochastic_descent",
]
