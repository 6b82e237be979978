#include "provider.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "capability.h"
#include "compute.h"

#define NAME "SparseKernelsExecutionProvider"
#define OPTION "ep.sparsekernelsexecutionprovider."
#define VENDOR "compress-then-export"

struct factory {
  OrtEpFactory factory; /* first: onnxruntime's pointer is ours */
  const OrtApi *api;
  const OrtEpApi *ep_api;
};

static const char *ep_name(const OrtEp *ep) {
  (void)ep;
  return NAME;
}

static const char *factory_name(const OrtEpFactory *factory) {
  (void)factory;
  return NAME;
}

static const char *factory_vendor(const OrtEpFactory *factory) {
  (void)factory;
  return VENDOR;
}

static uint32_t factory_vendor_id(const OrtEpFactory *factory) {
  (void)factory;
  return 0;
}

static const char *factory_version(const OrtEpFactory *factory) {
  (void)factory;
  return "0.1.0"; /* has to have three numbers */
}

static OrtStatus *supported_devices(OrtEpFactory *factory, const OrtHardwareDevice *const *devices, size_t count,
                                    OrtEpDevice **found, size_t room, size_t *found_count) {
  const struct factory *own = (const struct factory *)factory;
  *found_count = 0;
  for (size_t i = 0; i < count && *found_count < room; i++) {
    if (own->api->HardwareDevice_Type(devices[i]) != ORT_DEVICE_CPU) continue;
    OrtStatus *error = own->ep_api->CreateEpDevice(factory, devices[i], NULL, NULL, &found[*found_count]);
    if (error) return error;
    ++*found_count;
  }
  return NULL;
}

/* A provider option as text; empty where it is not set, an error where it is too long. */
static OrtStatus *option(const OrtApi *api, const OrtSessionOptions *options, const char *key, char text[32]) {
  char name[96];
  int present = 0;
  size_t size = 32;
  text[0] = 0;
  snprintf(name, sizeof name, "%s%s", OPTION, key);
  OrtStatus *error = api->HasSessionConfigEntry(options, name, &present);
  if (error || !present) return error;
  if ((error = api->GetSessionConfigEntry(options, name, text, &size))) text[0] = 0;
  return error;
}

/* An option that has to be empty or one of `known`, which are separated by ", ". */
static OrtStatus *choice(const OrtApi *api, const OrtSessionOptions *options, const char *key, const char *known,
                         char text[32]) {
  OrtStatus *error = option(api, options, key, text);
  const size_t length = strlen(text);
  if (!error && !strchr(text, ','))
    for (const char *at = known; at; at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL)
      if (strncmp(at, text, length) == 0 && (!at[length] || at[length] == ',')) return NULL;
  if (error || length == 0) return error;
  char message[160];
  snprintf(message, sizeof message, "sparse kernels: %s: '%s' is not one of %s", key, text, known);
  return api->CreateStatus(ORT_INVALID_ARGUMENT, message);
}

/* The number that the session reports under, 0 where there is none. */
static OrtStatus *report_number(const OrtApi *api, const OrtSessionOptions *options, uint64_t *number) {
  char text[32];
  OrtStatus *error = option(api, options, "report", text);
  if (error) return error;
  if (text[strspn(text, "0123456789")] || strlen(text) > 19) /* so many digits fit */
    return api->CreateStatus(ORT_INVALID_ARGUMENT, "sparse kernels: report: not a number");
  *number = strtoull(text, NULL, 10);
  return NULL;
}

static OrtStatus *create_ep(OrtEpFactory *factory, const OrtHardwareDevice *const *devices,
                            const OrtKeyValuePairs *const *metadata, size_t count, const OrtSessionOptions *options,
                            const OrtLogger *logger, OrtEp **ep) {
  const struct factory *own = (const struct factory *)factory;
  const OrtApi *api = own->api;
  char claim[32], instructions[32];
  uint64_t report = 0;
  (void)devices, (void)metadata, (void)count, (void)logger;
  *ep = NULL;
  OrtStatus *error = choice(api, options, "claim", "sparse, all", claim);
  if (!error) error = choice(api, options, "instructions", "best, avx2, generic", instructions);
  if (!error) error = report_number(api, options, &report);
  if (error) return error;
  struct provider *provider = calloc(1, sizeof *provider);
  if (!provider || workspace_pool_open(&provider->pool)) {
    free(provider);
    return api->CreateStatus(ORT_EP_FAIL, "sparse kernels: out of memory");
  }
  provider->ep = (OrtEp){
      .version = ORT_INTERFACE,
      .GetName = ep_name,
      .GetCapability = provider_capability,
      .Compile = provider_compile,
      .ReleaseNodeComputeInfos = provider_release_infos,
  };
  provider->api = api;
  provider->ep_api = own->ep_api;
  provider->isa = isa_select(instructions);
  provider->claim_all = strcmp(claim, "all") == 0;
  provider->report = report;
  *ep = &provider->ep;
  return NULL;
}

static void release_ep(OrtEpFactory *factory, OrtEp *ep) {
  struct provider *provider = (struct provider *)ep;
  (void)factory;
  if (!provider) return;
  workspace_pool_close(&provider->pool);
  free(provider);
}

static OrtStatus *create_allocator(OrtEpFactory *factory, const void *memory, const OrtKeyValuePairs *options,
                                   void **allocator) {
  (void)factory, (void)memory, (void)options;
  *allocator = NULL; /* onnxruntime's own for the CPU */
  return NULL;
}

static void release_allocator(OrtEpFactory *factory, void *allocator) { (void)factory, (void)allocator; }

static OrtStatus *create_data_transfer(OrtEpFactory *factory, void **transfer) {
  (void)factory;
  *transfer = NULL;
  return NULL;
}

static bool is_stream_aware(const OrtEpFactory *factory) {
  (void)factory;
  return false;
}

/* NULL where this release of onnxruntime is one whose interface we know. */
static OrtStatus *refuse_version(const OrtApiBase *base) {
  int major = 0, minor = 0;
  const char *version = base->GetVersionString();
  if (version && sscanf(version, "%d.%d", &major, &minor) == 2 && major == 1 && minor >= ORT_OLDEST_MINOR &&
      minor <= ORT_NEWEST_MINOR)
    return NULL;
  char text[160];
  snprintf(text, sizeof text, "sparse kernels know onnxruntime 1.%d to 1.%d, not %.32s", ORT_OLDEST_MINOR,
           ORT_NEWEST_MINOR, version ? version : "this one");
  return base->GetApi(1)->CreateStatus(ORT_FAIL, text); /* interface 1 is in every release */
}

OrtStatus *CreateEpFactories(const char *registration, const OrtApiBase *base, const OrtLogger *logger,
                             OrtEpFactory **factories, size_t room, size_t *count) {
  (void)registration, (void)logger;
  *count = 0;
  OrtStatus *error = refuse_version(base);
  if (error) return error;
  const OrtApi *api = base->GetApi(ORT_INTERFACE);
  if (!api) return base->GetApi(1)->CreateStatus(ORT_FAIL, "sparse kernels: onnxruntime has no interface 23");
  struct factory *factory = room > 0 ? calloc(1, sizeof *factory) : NULL;
  if (!factory) return api->CreateStatus(ORT_FAIL, "sparse kernels: no room for a provider");
  factory->factory = (OrtEpFactory){
      .version = ORT_INTERFACE,
      .GetName = factory_name,
      .GetVendor = factory_vendor,
      .GetSupportedDevices = supported_devices,
      .CreateEp = create_ep,
      .ReleaseEp = release_ep,
      .GetVendorId = factory_vendor_id,
      .GetVersion = factory_version,
      .CreateAllocator = create_allocator,
      .ReleaseAllocator = release_allocator,
      .CreateDataTransfer = create_data_transfer,
      .IsStreamAware = is_stream_aware,
  };
  factory->api = api;
  factory->ep_api = api->GetEpApi();
  factories[0] = &factory->factory;
  *count = 1;
  return NULL;
}

OrtStatus *ReleaseEpFactory(OrtEpFactory *factory) {
  free(factory);
  return NULL;
}

const char *SparseKernelsInstructions(void) { return isa_select(NULL)->name; }
