/* What a driver's libnvidia-ml tells of two GPUs and an instance of one, with real signatures. OLD has no meter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int number; } *device;
static struct { int number; } gpus[3] = {{0}, {1}, {2}};
static const char *uuids[] = {"GPU-aaaa", "GPU-bbbb", "MIG-cccc"};
enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6 };

int nvmlInit_v2(void) { return getenv("FAKE_NVML") && !strcmp(getenv("FAKE_NVML"), "broken") ? 9 : OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned at, device *found) {
    if (at > 1) return INVALID;
    *found = (device)&gpus[at];
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, device *found) {
    for (int at = 0; at < 3; at++)
        if (!strcmp(uuid, uuids[at])) { *found = (device)&gpus[at]; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(device of, char *text, unsigned room) { snprintf(text, room, "%s", uuids[of->number]); return OK; }
int nvmlDeviceGetName(device of, char *text, unsigned room) { snprintf(text, room, "Fake %d", of->number); return OK; }
int nvmlDeviceGetMemoryInfo(device of, unsigned long long *memory) {
    memory[0] = 80ULL << 30;
    memory[2] = (unsigned long long)(of->number + 1) << 30;
    memory[1] = memory[0] - memory[2];
    return OK;
}
int nvmlDeviceGetUtilizationRates(device of, unsigned *rates) {
    if (of->number == 2) return UNSUPPORTED;
    rates[0] = 75;
    rates[1] = 10;
    return OK;
}
int nvmlDeviceGetPowerUsage(device of, unsigned *milliwatts) {
    if (of->number == 2) return UNSUPPORTED;
    *milliwatts = 300500;
    return OK;
}
int nvmlDeviceGetTemperature(device of, unsigned sensor, unsigned *celsius) {
    if (of->number == 2 || sensor) return UNSUPPORTED;
    *celsius = 61;
    return OK;
}
#ifndef OLD
int nvmlDeviceGetTotalEnergyConsumption(device of, unsigned long long *millijoules) {
    static unsigned long long used = 5000000;
    if (of->number == 2) return UNSUPPORTED;
    *millijoules = used += 1500;
    return OK;
}
#endif
