/*
 * A libnvidia-ml.so.1 that lies: it answers with any code, hangs, crashes, or loses its GPUs after N calls.
 *
 * What it does stands in a file beside it, `<library>.behaviour`, a rule a line:
 *
 *     gpus 8                      how many GPUs it lists (1 if nothing is said)
 *     <call> code 15              the call answers with this code
 *     <call>@2 code 15            so does it for GPU 2 alone
 *     <call> hang                 the call does not return
 *     <call> crash                the call ends the process by SIGSEGV
 *     lost 40                     after this many calls every call answers 15 (GPU is lost)
 *     name <text>                 the GPU's name, up to the line's end
 *
 * Calls are named as the library names them. Source of names and structures: nvml.h's documentation.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, GPU_IS_LOST = 15, MOST_GPUS = 64 };

struct device { unsigned index; };

static struct device devices[MOST_GPUS];
static char rules[8192];
static unsigned count = 1;
static long lost_after = -1;
static long calls;
static char product[512] = "NVIDIA Fake";

static void read_rules(void)
{
    static int done;
    Dl_info here;
    char path[4096];
    FILE *file;
    char *line, *rest, *text;

    if (done++)
        return;
    for (unsigned i = 0; i < MOST_GPUS; i++)
        devices[i].index = i;
    if (!dladdr((void *)read_rules, &here))
        return;
    snprintf(path, sizeof path, "%s.behaviour", here.dli_fname);
    file = fopen(path, "r");
    if (!file)
        return;
    rules[fread(rules, 1, sizeof rules - 1, file)] = 0;
    fclose(file);
    text = strdup(rules);
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        sscanf(line, "gpus %u", &count);
        sscanf(line, "lost %ld", &lost_after);
        if (!strncmp(line, "name ", 5))
            snprintf(product, sizeof product, "%s", line + 5);
    }
    free(text);
}

/* Returns what the rules say of a call, of one GPU or of all (-1). */
static int answer(const char *call, int index)
{
    char word[160], copy[sizeof rules];
    char *line, *rest;
    int code = SUCCESS;

    read_rules();
    calls++;
    memcpy(copy, rules, sizeof rules);
    for (line = strtok_r(copy, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char what[32] = "";
        int number = 0;
        char mine[160];

        if (sscanf(line, "%159s %31s %d", word, what, &number) < 2)
            continue;
        snprintf(mine, sizeof mine, "%s@%d", call, index);
        if (strcmp(word, call) && strcmp(word, mine))
            continue;
        if (!strcmp(what, "hang"))
            for (;;)
                pause();
        if (!strcmp(what, "crash"))
            raise(SIGSEGV);
        if (!strcmp(what, "code"))
            code = number;
    }
    if (lost_after >= 0 && calls > lost_after && index >= 0)
        return GPU_IS_LOST;
    return code;
}

#define INDEX(device) ((int)((struct device *)(device))->index)
#define SYSTEM(name) int name(void) { return answer(#name, -1); }
#define QUERY(name) int name(void *device) { return answer(#name, INDEX(device)); }
#define NUMBER(name, value) \
    int name(void *device, unsigned *out) { *out = (value); return answer(#name, INDEX(device)); }
#define TEXT(name, value) \
    int name(void *device, char *out, unsigned length) \
    { snprintf(out, length, "%s", (value)); return answer(#name, INDEX(device)); }

SYSTEM(nvmlInitWithFlags)
SYSTEM(nvmlShutdown)
SYSTEM(nvmlSystemGetConfComputeState)

int nvmlDeviceGetCount_v2(unsigned *out) { read_rules(); *out = count; return answer("nvmlDeviceGetCount_v2", -1); }

int nvmlSystemGetDriverVersion(char *out, unsigned length)
{
    snprintf(out, length, "580.00.01");
    return answer("nvmlSystemGetDriverVersion", -1);
}

int nvmlSystemGetNVMLVersion(char *out, unsigned length)
{
    snprintf(out, length, "13.580.00.01");
    return answer("nvmlSystemGetNVMLVersion", -1);
}

int nvmlSystemGetCudaDriverVersion_v2(int *out)
{
    *out = 13000;
    return answer("nvmlSystemGetCudaDriverVersion_v2", -1);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    read_rules();
    if (index >= count)
        return INVALID_ARGUMENT;
    *out = &devices[index];
    return answer("nvmlDeviceGetHandleByIndex_v2", (int)index);
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned length)
{
    snprintf(out, length, "GPU-00000000-0000-0000-0000-%012d", INDEX(device));
    return answer("nvmlDeviceGetUUID", INDEX(device));
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *out)
{
    out->bus = (unsigned)INDEX(device) + 1;
    out->id = 0x233510de;
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", out->bus);
    return answer("nvmlDeviceGetPciInfo_v3", INDEX(device));
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending)
{
    *now = *pending = 0;
    return answer("nvmlDeviceGetMigMode", INDEX(device));
}

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *out)
{
    *out = 1;
    return link < 4 ? answer("nvmlDeviceGetNvLinkState", INDEX(device)) : INVALID_ARGUMENT;
}

TEXT(nvmlDeviceGetName, product)
TEXT(nvmlDeviceGetSerial, "1000000000000")
TEXT(nvmlDeviceGetVbiosVersion, "96.00.00.00.00")
NUMBER(nvmlDeviceGetMinorNumber, (unsigned)INDEX(device))
NUMBER(nvmlDeviceGetArchitecture, 9)
NUMBER(nvmlDeviceGetPersistenceMode, 1)
NUMBER(nvmlDeviceGetComputeMode, 0)
NUMBER(nvmlDeviceGetPowerUsage, 78000)
QUERY(nvmlDeviceGetMemoryInfo)
QUERY(nvmlDeviceGetRemappedRows)
QUERY(nvmlDeviceGetComputeRunningProcesses_v3)
QUERY(nvmlDeviceGetFieldValues)
QUERY(nvmlDeviceGetSramEccErrorStatus)
QUERY(nvmlDeviceGetGpuFabricInfoV)
QUERY(nvmlDeviceValidateInforom)
