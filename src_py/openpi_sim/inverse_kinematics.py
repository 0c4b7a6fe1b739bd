"""Joint angles that bring an arm's fingertips to a pose: damped least squares (Wampler 1986) on MuJoCo's Jacobian."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from openpi_sim.gl import mujoco

_DAMPING = 1e-2
_MAX_STEP_RAD = 0.2
_MAX_ITERATIONS = 300
_TOLERANCE = 1e-5


class UnreachableError(ValueError):
    """No joint angles within the limits reach the pose."""


class ArmSolver:
    """Inverse kinematics of one arm of a model, on data of its own: the world does not move.

    Args:
        model: the compiled model.
        name: what errors call the arm.
        body: the hand.
        joints: names of the arm's joints, from the base to the hand.
        grasp_point: the point between the fingertips, in m in the hand's frame.
    """

    def __init__(
        self,
        model: "mujoco.MjModel",
        *,
        name: str,
        body: str,
        joints: Sequence[str],
        grasp_point: Float[np.ndarray, "3"],
    ) -> None:
        self._model = model
        self._data = mujoco.MjData(model)
        self._name = name
        self._body = model.body(body).id
        self._grasp_point = np.asarray(grasp_point)
        self._qpos = [int(model.joint(joint).qposadr[0]) for joint in joints]
        self._dofs = [int(model.joint(joint).dofadr[0]) for joint in joints]
        self._lower, self._upper = np.array([model.joint(joint).range for joint in joints]).T

    def pose(self, q: Float[np.ndarray, "joints"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3 3"]]:
        """World position in m of the grasp point and rotation of the gripper at joint angles `q`."""
        self._data.qpos[self._qpos] = q
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_comPos(self._model, self._data)
        rotation = self._data.xmat[self._body].reshape(3, 3).copy()
        return self._data.xpos[self._body] + rotation @ self._grasp_point, rotation

    def solve(
        self, position: Float[np.ndarray, "3"], rotation: Float[np.ndarray, "3 3"], guess: Float[np.ndarray, "joints"]
    ) -> Float[np.ndarray, "joints"]:
        """Joint angles in rad, near `guess`, at which the grasp point has this world position (m) and rotation.

        Raises:
            UnreachableError: the search ended more than a millimetre or a milliradian away.
        """
        q = np.array(guess, np.float64)
        for _ in range(_MAX_ITERATIONS):
            error = self._error(q, position, rotation)
            if np.abs(error).max() < _TOLERANCE:
                break
            q = np.clip(q + self._step(error), self._lower, self._upper)
        if (worst := np.abs(self._error(q, position, rotation)).max()) > 1e-3:
            raise UnreachableError(
                f"The {self._name} arm does not reach {np.round(position, 3).tolist()} m in the orientation asked for: "
                f"the nearest pose found is {worst:.3f} (m or rad) off."
            )
        return q

    def _error(
        self, q: Float[np.ndarray, "joints"], position: Float[np.ndarray, "3"], rotation: Float[np.ndarray, "3 3"]
    ) -> Float[np.ndarray, "6"]:
        here, turned = self.pose(q)
        quaternion, angle = np.empty(4), np.empty(3)
        mujoco.mju_mat2Quat(quaternion, (rotation @ turned.T).ravel())
        mujoco.mju_quat2Vel(angle, quaternion, 1.0)
        return np.concatenate([position - here, angle])

    def _step(self, error: Float[np.ndarray, "6"]) -> Float[np.ndarray, "joints"]:
        """One damped least-squares step from where `pose` was last computed."""
        linear, angular = np.empty((3, self._model.nv)), np.empty((3, self._model.nv))
        point = self._data.xpos[self._body] + self._data.xmat[self._body].reshape(3, 3) @ self._grasp_point
        mujoco.mj_jac(self._model, self._data, linear, angular, point, self._body)
        jacobian = np.vstack([linear, angular])[:, self._dofs]
        step = jacobian.T @ np.linalg.solve(jacobian @ jacobian.T + _DAMPING**2 * np.eye(6), error)
        return step * min(1.0, _MAX_STEP_RAD / max(np.abs(step).max(), 1e-12))
