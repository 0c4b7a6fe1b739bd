from setuptools import find_packages, setup

SIMULATORS = ["aloha_sim_node", "franka_sim_node", "libero_sim_node"]
NODES = ["openpi_policy_node", "chunk_executor_node", *SIMULATORS, "bag_recorder_node"]

setup(
    name="openpi_ros",
    version="0.1.0",
    description="ROS 2 nodes of openpi",
    license="Apache-2.0",
    packages=find_packages(),
    package_data={"openpi_ros": ["parameters/*.yaml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/openpi_ros"]),
        ("share/openpi_ros", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [f"{node} = openpi_ros.{node}:main" for node in NODES],
        "openpi.commands": [
            "bench.executor = openpi_ros.bench_executor",
            "convert.bag-to-lerobot = openpi_ros.convert_bag_to_lerobot",
            "doctor = openpi_ros.doctor",
            "eval.bag = openpi_ros.eval_bag",
        ],
    },
)
