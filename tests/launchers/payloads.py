"""Payloads of the launchers' tests, as text: they run in other environments than the tests."""

TORCH_SUM = """
import datetime, os, signal, socket, sys, time
rank, world, mode = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), sys.argv[1]
node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
if mode == "stubborn" and rank == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if mode == "hang" and rank == 3:
    print("rank", rank, "hangs", flush=True)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(1)
if mode == "once" and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    sys.exit(7)
import torch
import torch.distributed as dist
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=float(os.environ.get("GROUP_TIMEOUT", "900"))))
total = torch.tensor([rank])
dist.all_reduce(total)
pipes = any(name.startswith("DAGSTER_PIPES_") for name in os.environ)
print("rank", rank, "of", world, "sum", total.item(), "pipes", pipes, "on", node, "threads", torch.get_num_threads(),
      flush=True)
if mode == "exit7" and rank == 3:
    os._exit(7)  # sys.exit would tear gloo down, which may abort while the others are still talking
while mode not in ("sum", "once"):
    time.sleep(0.1)
    dist.all_reduce(total)
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # a thread of Gloo may abort an interpreter that is ending (pytorch pull request 179291)
"""

RAY_SPREAD = """
import os, sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False, logging_level="ERROR")
print("CPUs", int(ray.cluster_resources()["CPU"]), "GPUs", int(ray.cluster_resources().get("GPU", 0)), flush=True)

@ray.remote(num_cpus=1)
def where():
    return ray.get_runtime_context().get_node_id()

def on(node):
    return where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False))

nodes = {node["NodeID"]: node for node in ray.nodes()}
names = sorted(nodes[found]["NodeName"] for found in ray.get([on(node).remote() for node in nodes.values()]))
print("tasks ran on", ",".join(names), flush=True)
if "exit3" in sys.argv:
    sys.exit(3)
if "wait" in sys.argv:
    time.sleep(600)
"""

TORCH_REPORT = """
import datetime, os, sys
import torch
import torch.distributed as dist
from dagster_pipes import open_dagster_pipes
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=900))
total = torch.tensor([dist.get_rank()])
dist.all_reduce(total)
nodes = [None] * dist.get_world_size()
dist.all_gather_object(nodes, os.environ.get("SLURMD_NODENAME", "here"))
with open_dagster_pipes() as pipes:
    pipes.log.info("rank %d speaks", dist.get_rank())
    if dist.get_rank() == 0:
        pipes.report_asset_materialization(
            metadata={"sum": total.item(), "world": dist.get_world_size(), "nodes": " ".join(nodes)}
        )
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""

RAY_REPORT = (
    RAY_SPREAD
    + """
from dagster_pipes import open_dagster_pipes
with open_dagster_pipes() as pipes:
    time.sleep(2)
    metadata = {"cpus": int(ray.cluster_resources()["CPU"]), "nodes": " ".join(names)}
    pipes.report_asset_materialization(metadata=metadata)
"""
)
