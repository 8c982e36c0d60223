/*
 * A libnvidia-ml.so.1 that lies: it answers with any code or number, hangs, crashes, or loses its GPUs after N calls.
 * What it says if nothing else is said is a healthy H200's, as in fixtures/bundles/recorded/host-healthy, with four
 * NVLinks to its siblings.
 *
 * What it does stands in a file beside it, `<library>.behaviour`, a rule a line:
 *
 *     gpus 8                      how many GPUs it lists (1 if nothing is said)
 *     name <text>                 their name, up to the line's end; `name@2 <text>` that of GPU 2
 *     address@2 0000:0a:00.0      where GPU 2 stands (bus number 1 on, one after the other, if nothing is said)
 *     nvlinks 18                  how many NVLinks each has (0: not supported, as on PCIe alone)
 *     down@2 5                    NVLink 5 of GPU 2 is not active
 *     parts@2 3                   GPU 2 has MIG devices at its first three places (of seven), and MIG on
 *     lost 40                     after this many calls every GPU answers 15 (GPU is lost); `lost@2 40` GPU 2 alone
 *     <call> code 15              the call answers with this code; `<call>@2 code 15` for GPU 2 alone
 *     <call> value 7              its number is this one; of several numbers the first
 *     <call> hang                 the call does not return
 *     <call> crash                the call ends the process by SIGSEGV
 *     field@2 38 code 3           a field value's code, by the field's number; `field 38 value 9` its number,
 *                                 `field 194 untold` it is left as it was, where it is asked for with others
 *
 * Calls are named as the library names them. Source of names, structures and numbers: nvml.h.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15, MOST_GPUS = 64, MOST_RULES = 256,
    LONGEST = 200, UNSIGNED_INT = 1,
};

struct device { unsigned index; int part; };
struct rule { char word[LONGEST], rest[LONGEST]; };

static struct device devices[MOST_GPUS], parts[MOST_GPUS];
static struct rule rules[MOST_RULES];
static int number_of_rules;
static unsigned count = 1;
static long calls;

static void read_rules(void)
{
    static int done;
    Dl_info here;
    char path[4096], line[2 * LONGEST];
    FILE *file;

    if (done++)
        return;
    for (unsigned i = 0; i < MOST_GPUS; i++)
        devices[i].index = parts[i].index = i, devices[i].part = -1;
    if (!dladdr((void *)read_rules, &here))
        return;
    snprintf(path, sizeof path, "%s.behaviour", here.dli_fname);
    file = fopen(path, "r");
    while (file && number_of_rules < MOST_RULES && fgets(line, sizeof line, file)) {
        struct rule *rule = &rules[number_of_rules];

        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "%199s %199[^\n]", rule->word, rule->rest) != 2)
            continue;
        number_of_rules++;
        if (!strcmp(rule->word, "gpus"))
            count = (unsigned)atoi(rule->rest);
    }
    if (file)
        fclose(file);
}

/* Returns the last rule of a word for one GPU, else for all, that begins so; NULL if there is none. */
static const char *said(const char *word, int index, const char *begins)
{
    char mine[LONGEST + 16];
    const char *found = NULL;

    read_rules();
    snprintf(mine, sizeof mine, "%s@%d", word, index);
    for (int i = 0; i < number_of_rules; i++) {
        int is_mine = !strcmp(rules[i].word, mine);

        if ((is_mine || !strcmp(rules[i].word, word)) && !strncmp(rules[i].rest, begins, strlen(begins)))
            found = rules[i].rest + strlen(begins);
    }
    return found;
}

static unsigned long number(const char *call, int index, unsigned long usual)
{
    const char *rest = said(call, index, "value ");

    return rest ? strtoul(rest, NULL, 0) : usual;
}

/* Does what the rules say of a call, of one GPU or of none (-1), and returns its code. */
static int answer(const char *call, int index)
{
    const char *code = said(call, index, "code "), *lost = said("lost", index, "");

    calls++;
    if (said(call, index, "hang"))
        for (;;)
            pause();
    if (said(call, index, "crash"))
        raise(SIGSEGV);
    if (lost && index >= 0 && calls > atol(lost))
        return GPU_IS_LOST;
    return code ? atoi(code) : SUCCESS;
}

#define INDEX(device) ((int)((struct device *)(device))->index)
#define NUMBER(name, type, usual) \
    int name(void *device, type *out) \
    { *out = (type)number(#name, INDEX(device), (usual)); return answer(#name, INDEX(device)); }
#define PAIR(name, type, first, second) \
    int name(void *device, type *one, type *two) \
    { *one = (type)number(#name, INDEX(device), (first)); *two = (second); return answer(#name, INDEX(device)); }
#define OF_KIND(name, usual) \
    int name(void *device, unsigned kind, unsigned *out) \
    { *out = (unsigned)number(#name, INDEX(device), (usual)); return answer(#name, INDEX(device)); }
#define TEXT(name, usual) \
    int name(void *device, char *out, unsigned length) \
    { const char *mine = said(#name, INDEX(device), "value "); \
      snprintf(out, length, "%s", mine ? mine : (usual)); return answer(#name, INDEX(device)); }
#define LIST(name) \
    int name(void *device, unsigned *length, void *out) { *length = 0; return answer(#name, INDEX(device)); }
#define OFFERED_TO_NONE(name) \
    int name(void *device, void *out) \
    { int code = answer(#name, INDEX(device)); return code ? code : NOT_SUPPORTED; }

int nvmlInit_v2(void) { return answer("nvmlInit_v2", -1); }
int nvmlShutdown(void) { return answer("nvmlShutdown", -1); }
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

int nvmlSystemGetConfComputeState(unsigned out[3])
{
    out[0] = out[1] = out[2] = 0;
    return answer("nvmlSystemGetConfComputeState", -1);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out)
{
    read_rules();
    if (index >= count)
        return INVALID_ARGUMENT;
    *out = &devices[index];
    return answer("nvmlDeviceGetHandleByIndex_v2", (int)index);
}

int nvmlDeviceGetName(void *device, char *out, unsigned length)
{
    const char *name = said("name", INDEX(device), "");

    snprintf(out, length, "%s", name ? name : "NVIDIA Fake");
    return answer("nvmlDeviceGetName", INDEX(device));
}

int nvmlDeviceGetUUID(void *device, char *out, unsigned length)
{
    int part = ((struct device *)device)->part;

    snprintf(out, length, "%s-00000000-0000-0000-%04d-%012d", part < 0 ? "GPU" : "MIG", part + 1, INDEX(device));
    return answer("nvmlDeviceGetUUID", INDEX(device));
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

int nvmlDeviceGetPciInfo_v3(void *device, struct pci *out)
{
    const char *address = said("address", INDEX(device), "");

    out->bus = (unsigned)INDEX(device) + 1;
    if (address)
        sscanf(address, "%x:%x:%x", &out->domain, &out->bus, &out->device);
    out->id = 0x233510de;
    snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", out->domain, out->bus, out->device);
    return answer("nvmlDeviceGetPciInfo_v3", INDEX(device));
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long out[3])
{
    out[0] = 150754820096ULL, out[1] = 150109880320ULL, out[2] = 644939776ULL;
    return answer("nvmlDeviceGetMemoryInfo", INDEX(device));
}

int nvmlDeviceGetTotalEccErrors(void *device, unsigned error, unsigned since, unsigned long long *out)
{
    *out = number("nvmlDeviceGetTotalEccErrors", INDEX(device), 0);
    return answer("nvmlDeviceGetTotalEccErrors", INDEX(device));
}

int nvmlDeviceGetSramEccErrorStatus(void *device, unsigned char *out)
{
    memset(out + 4, 0, 100);
    return answer("nvmlDeviceGetSramEccErrorStatus", INDEX(device));
}

int nvmlDeviceGetRemappedRows(void *device, unsigned *fixed, unsigned *lost, unsigned *pending, unsigned *failed)
{
    *fixed = *lost = *failed = 0;
    *pending = (unsigned)number("nvmlDeviceGetRemappedRows", INDEX(device), 0);
    return answer("nvmlDeviceGetRemappedRows", INDEX(device));
}

int nvmlDeviceGetRowRemapperHistogram(void *device, unsigned out[5])
{
    memset(out, 0, 5 * sizeof *out);
    out[0] = 3072;
    return answer("nvmlDeviceGetRowRemapperHistogram", INDEX(device));
}

int nvmlDeviceGetGridLicensableFeatures_v4(void *device, unsigned char *out)
{
    memset(out, 0, 860);
    return answer("nvmlDeviceGetGridLicensableFeatures_v4", INDEX(device));
}

int nvmlDeviceGetGspFirmwareVersion(void *device, char *out)
{
    strcpy(out, "580.00.01");
    return answer("nvmlDeviceGetGspFirmwareVersion", INDEX(device));
}

struct fabric { unsigned version; unsigned char cluster[16]; unsigned status, clique, state, mask; unsigned char summary; };

int nvmlDeviceGetGpuFabricInfoV(void *device, struct fabric *out)
{
    memset(out->cluster, 0, sizeof out->cluster);
    out->status = out->clique = out->mask = 0;
    out->state = (unsigned)number("nvmlDeviceGetGpuFabricInfoV", INDEX(device), 0);
    return answer("nvmlDeviceGetGpuFabricInfoV", INDEX(device));
}

static int number_of_parts(int index)
{
    const char *rest = said("parts", index, "");

    return rest ? atoi(rest) : 0;
}

int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending)
{
    *now = *pending = number_of_parts(INDEX(device)) > 0;
    return answer("nvmlDeviceGetMigMode", INDEX(device));
}

int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *out)
{
    *out = 7;
    return answer("nvmlDeviceGetMaxMigDeviceCount", INDEX(device));
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned place, void **out)
{
    if ((int)place >= number_of_parts(INDEX(device)))
        return NOT_FOUND;
    parts[INDEX(device)].part = (int)place;
    *out = &parts[INDEX(device)];
    return answer("nvmlDeviceGetMigDeviceHandleByIndex", INDEX(device));
}

int nvmlDeviceGetAttributes_v2(void *device, unsigned out[10])
{
    memset(out, 0, 40);
    out[0] = 16;
    return answer("nvmlDeviceGetAttributes_v2", INDEX(device));
}

static unsigned links(int index)
{
    const char *rest = said("nvlinks", index, "");

    return rest ? (unsigned)atoi(rest) : 4;
}

int nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *out)
{
    char name[16];

    if (!links(INDEX(device)))
        return NOT_SUPPORTED;
    if (link >= links(INDEX(device)))
        return INVALID_ARGUMENT;
    snprintf(name, sizeof name, "%u", link);
    *out = !said("down", INDEX(device), name);
    return answer("nvmlDeviceGetNvLinkState", INDEX(device));
}

struct field {
    unsigned id, scope;
    long long timestamp, latency;
    unsigned type, code;
    union { unsigned number; double real; } value;
};

int nvmlDeviceGetFieldValues(void *device, int length, struct field *out)
{
    int index = INDEX(device);

    for (int i = 0; i < length; i++) {
        char begins[32];
        const char *value, *code;

        snprintf(begins, sizeof begins, "%u untold", out[i].id);
        if (length > 1 && said("field", index, begins))
            continue;
        snprintf(begins, sizeof begins, "%u code ", out[i].id);
        code = said("field", index, begins);
        snprintf(begins, sizeof begins, "%u value ", out[i].id);
        value = said("field", index, begins);
        out[i].type = UNSIGNED_INT;
        out[i].code = code ? (unsigned)atoi(code) : SUCCESS;
        out[i].value.number = value ? (unsigned)strtoul(value, NULL, 0) : 0;
        if (out[i].id == 91 && !value)  /* how many NVLinks it has */
            out[i].value.number = links(index), out[i].code = links(index) ? SUCCESS : NOT_SUPPORTED;
    }
    return answer("nvmlDeviceGetFieldValues", index);
}

struct margin { unsigned version; int celsius; };

int nvmlDeviceGetMarginTemperature(void *device, struct margin *out)
{
    out->celsius = (int)number("nvmlDeviceGetMarginTemperature", INDEX(device), 47);
    return answer("nvmlDeviceGetMarginTemperature", INDEX(device));
}

TEXT(nvmlDeviceGetSerial, "1000000000000")
TEXT(nvmlDeviceGetVbiosVersion, "96.00.00.00.00")
TEXT(nvmlDeviceGetInforomImageVersion, "G520.0282.02.02")
NUMBER(nvmlDeviceGetMinorNumber, unsigned, (unsigned)INDEX(device))
NUMBER(nvmlDeviceGetArchitecture, unsigned, 9)
NUMBER(nvmlDeviceGetVirtualizationMode, unsigned, 0)
NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned, 0)
NUMBER(nvmlDeviceGetComputeMode, unsigned, 0)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, 1)
NUMBER(nvmlDeviceGetAccountingMode, unsigned, 0)
NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, 1)
NUMBER(nvmlDeviceGetPowerUsage, unsigned, 78000)
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, 700000)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, 700000)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 700000)
PAIR(nvmlDeviceGetCudaComputeCapability, int, 9, 0)
PAIR(nvmlDeviceGetGspFirmwareMode, unsigned, 1, 1)
PAIR(nvmlDeviceGetEccMode, unsigned, 1, 1)
OF_KIND(nvmlDeviceGetClockInfo, 345)
OF_KIND(nvmlDeviceGetApplicationsClock, 1980)
OF_KIND(nvmlDeviceGetDefaultApplicationsClock, 1980)
OF_KIND(nvmlDeviceGetTemperature, 40)
OF_KIND(nvmlDeviceGetTemperatureThreshold, 89)
LIST(nvmlDeviceGetComputeRunningProcesses_v3)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3)
OFFERED_TO_NONE(nvmlDeviceGetRetiredPagesPendingStatus)

/* With all that NVML tells. */
int nvmlDeviceValidateInforom(void *device) { return answer("nvmlDeviceValidateInforom", INDEX(device)); }
NUMBER(nvmlDeviceGetBrand, unsigned, 14)
